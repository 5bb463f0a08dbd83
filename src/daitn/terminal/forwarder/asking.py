"""A gateway's queries as packets: they find their model hop by hop."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from daitn.objects.queries import AUTO, Privacy, QueryIntent, Strategy, Trust
from daitn.steering.scoring import STEERING
from daitn.steering.wire.packet import Kind, Packet
from daitn.steering.wire.replies import Reason, read_refusal
from daitn.steering.wire.want import Capability, Want, encode_want
from daitn.terminal.forwarder.answering import Answered, Question, read_answered
from daitn.terminal.forwarder.post import Post, new_id
from daitn.terminal.openai_api import ApiError, bad_request

__all__ = ["AskingByPacket", "Steered"]

_TRUST = {Trust.CLAIMED: 0, Trust.WEIGHTS: 1, Trust.ASKED: 2}
_STATUS = {
    Reason.NO_WAY: (404, "model_not_found"),
    Reason.LOOP: (503, "unavailable"),
    Reason.FULL: (503, "overloaded"),
    Reason.RATE: (429, "rate_limited"),
    Reason.FAILED: (503, "unavailable"),
    Reason.DENIED: (400, "invalid_request"),
    Reason.HOPS: (503, "unavailable"),
    Reason.DEADLINE: (504, "deadline"),
    Reason.MALFORMED: (400, "invalid_request"),
}


@dataclass(frozen=True, slots=True)
class Steered:
    """An answer, and how it came about."""

    answered: Answered
    object_id: str
    """For `daitn trace`."""
    path: tuple[str, ...]
    """From this site to the one that answered."""


class AskingByPacket:
    """Lets queries set out from this site's forwarder."""

    def __init__(self, post: Post) -> None:
        self._post = post

    async def ask(self, intent: QueryIntent, question: Question) -> Steered:
        """Raises `ApiError` for what packets cannot say, and where nobody answers."""
        deadline_s = intent.wishes.deadline_s
        packet = Packet(
            Kind.QUERY,
            new_id(),
            encode_want(_want(intent)),
            msgspec.msgpack.encode(question),
            deadline_ms=int(1000 * (self._post.now_s() + deadline_s)) if deadline_s else 0,
        )
        back = await self._post.send(packet)
        if back.kind is Kind.REFUSAL:
            refusal = read_refusal(back)
            status, code = _STATUS[refusal.reason]
            raise ApiError(
                status,
                code,
                f"{refusal.reason.name}: {refusal.detail}".rstrip(": "),
                retry_after_s=refusal.retry_after_s or None,
                daitn={"object": packet.object_id.hex()},
            )
        answered = read_answered(back.payload)
        return Steered(answered, packet.object_id.hex(), answered.path)


def _want(intent: QueryIntent) -> Want:
    """Raises `ApiError` for wishes that only a gateway that knows all sites can fulfil."""
    wishes = intent.wishes
    if intent.site is not None:
        raise bad_request("a query that finds its own way cannot name a site", "model")
    if wishes.privacy is Privacy.SITE:
        raise bad_request("a query that stays at its site does not travel", "daitn.privacy")
    if wishes.strategy is not Strategy.SINGLE:
        raise bad_request("a query that finds its own way asks one model", "daitn.strategy")
    known = {name: weight for name, weight in wishes.prefer.items() if name in STEERING.scorers}
    auto = intent.model == AUTO
    return Want(
        Capability.ANSWER if auto else Capability.MODEL,
        intent.topic if auto else intent.model,
        owner=intent.owner,
        min_fit=wishes.min_accuracy or 0.0,
        trust=_TRUST[wishes.trust],
        max_cost_usd=wishes.max_cost_usd,
        jurisdictions=wishes.jurisdictions,
        owners=wishes.owners,
        unkept=wishes.privacy is Privacy.UNKEPT,
        tokens_in=intent.tokens_in,
        tokens_out=intent.tokens_out,
        prefer=known,
    )
