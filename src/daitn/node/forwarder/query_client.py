"""Sends a gateway's queries as packets, which find their model hop by hop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from daitn.identity.keys import SigningKey
from daitn.identity.sealing import ReceiverKey
from daitn.node.forwarder.protection import open_payload, seal_payload, sign_packet
from daitn.node.forwarder.query_service import PacketQuestion, PacketReply, read_reply
from daitn.node.forwarder.runtime import ForwarderRuntime, new_id
from daitn.objects.abilities import Need, mask_of
from daitn.objects.errors import DaitnError
from daitn.objects.queries import AUTO, Privacy, QueryConstraints, QueryIntent, Strategy, Trust
from daitn.openai.context_excess import EXCEEDED, says_exceeded
from daitn.openai.errors import ApiError, Error, bad_request
from daitn.steering.scoring import STEERING
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.packet import MOST_PAYLOAD_BYTES, Packet, PacketKind
from daitn.steering.wire.replies import Reason, read_refusal

__all__ = ["PacketAnswer", "PacketQueryClient"]

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
    Reason.UNSUITED: (400, "unsupported"),
    Reason.MISCONFIGURED: (502, "misconfigured"),
}


@dataclass(frozen=True, slots=True)
class PacketAnswer:
    """An answer, with its object id and path."""

    answered: PacketReply
    object_id: str
    """For `daitn trace`."""
    path: tuple[str, ...]
    """From this site to the one that answered."""


class PacketQueryClient:
    """Sends queries from this site's forwarder, signed with the site's key."""

    def __init__(
        self, runtime: ForwarderRuntime, key: SigningKey, classes: Mapping[str, str], seal_to: str
    ) -> None:
        """`classes`: public keys of receiver classes, by name; `seal_to`: the class to which
        queries are sealed by default, empty for none."""
        self._runtime = runtime
        self._key = key
        self._classes = classes
        self._seal_to = seal_to

    async def ask(self, intent: QueryIntent, question: PacketQuestion) -> tuple[PacketAnswer, ...]:
        """The answers to the query, at least one; an ensemble sends several copies.

        Raises `ApiError` for constraints that packets cannot express, and if nobody answers.
        """
        constraints = intent.constraints
        class_public = self._class_public(constraints)
        reply = ReceiverKey.generate() if class_public else None
        if reply is not None:
            question = msgspec.structs.replace(question, reply_to=reply.public)
        deadline_s = constraints.deadline_s
        packet = Packet(
            PacketKind.QUERY,
            new_id(),
            encode_intent(_packet_intent(intent)),
            msgspec.msgpack.encode(question),
            deadline_ms=int(1000 * (self._runtime.now_s() + deadline_s)) if deadline_s else 0,
        )
        if len(packet.payload) > MOST_PAYLOAD_BYTES:
            raise bad_request(
                f"a packet has room for {MOST_PAYLOAD_BYTES} bytes, but this needs "
                f"{len(packet.payload)}",
                "body",
                fix="ask without `daitn.autonomous`",
                status=413,
            )
        # Copies are made only here, so a stranger's packet cannot multiply.
        copies = [
            self._protected(msgspec.structs.replace(packet, branch=branch), class_public)
            for branch in range(
                constraints.members if constraints.strategy is Strategy.ENSEMBLE else 1
            )
        ]
        answers: list[PacketAnswer] = []
        errors: list[ApiError] = []
        for back in await self._replies(copies, constraints.hedge):
            try:
                answers.append(_read_answer(back, reply))
            except ApiError as error:
                errors.append(error)
        if not answers:
            raise errors[0]
        return tuple(answers)

    def _class_public(self, constraints: QueryConstraints) -> str:
        """The public key to which the query is sealed; empty for none."""
        name = self._seal_to if constraints.sealed_to is None else constraints.sealed_to
        if not name:
            return ""
        if name not in self._classes:
            known = ", ".join(sorted(self._classes)) or "none"
            raise bad_request(
                f"there is no class {name}", "daitn.sealed_to", fix=f"use one of: {known}"
            )
        return self._classes[name]

    def _protected(self, packet: Packet, class_public: str) -> Packet:
        return sign_packet(
            seal_payload(packet, class_public) if class_public else packet, self._key
        )

    async def _replies(self, copies: Sequence[Packet], hedge: bool) -> list[Packet]:
        """The reply to each copy, in order.

        With `hedge`, once most copies that were not refused have answered, the rest get as long
        again as that took.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        tasks = [loop.create_task(self._runtime.send(copy)) for copy in copies]
        late = {*tasks}
        try:
            while late and not (
                hedge and _majority_answered([t.result() for t in tasks if t.done()], tasks)
            ):
                _, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
            if late:
                await asyncio.wait(late, timeout=loop.time() - began_s)
            return [task.result() for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()


def _majority_answered(back: Sequence[Packet], sent: Sequence[object]) -> bool:
    refused = sum(packet.kind is PacketKind.REFUSAL for packet in back)
    return 2 * (len(back) - refused) > len(sent) - refused


def _read_answer(back: Packet, reply: ReceiverKey | None) -> PacketAnswer:
    """The answer in a reply. Raises `ApiError` for a refusal, or if it cannot be read."""
    object_id = back.object_id.hex()
    if back.kind is PacketKind.REFUSAL:
        refusal = read_refusal(back)
        status, code = _STATUS[refusal.reason]
        if refusal.reason is Reason.UNSUITED and says_exceeded(Error(refusal.detail)):
            code = EXCEEDED
        raise ApiError(
            status,
            code,
            f"{refusal.reason.name}: {refusal.detail}".rstrip(": "),
            retry_after_s=refusal.retry_after_s or None,
            daitn={"object": object_id},
            permanent=refusal.reason is Reason.MISCONFIGURED,
        )
    try:
        payload = back.payload if reply is None else open_payload(back, reply)
        answered = read_reply(payload)
    except DaitnError as error:
        raise ApiError(
            503, "unavailable", f"the answer cannot be read: {error}", daitn={"object": object_id}
        ) from None
    return PacketAnswer(answered, object_id, answered.path)


def _packet_intent(intent: QueryIntent) -> PacketIntent:
    """Raises `ApiError` for constraints that need a gateway with a view of all sites."""
    constraints = intent.constraints
    if intent.site is not None:
        raise bad_request("an autonomous query cannot name a site", "model")
    if constraints.privacy is Privacy.SITE:
        raise bad_request("a query that stays at its site cannot be autonomous", "daitn.privacy")
    if constraints.strategy is Strategy.CASCADE:
        raise bad_request("an autonomous query asks one model or an ensemble", "daitn.strategy")
    known = {
        name: weight for name, weight in constraints.prefer.items() if name in STEERING.scorers
    }
    auto = intent.model == AUTO
    return PacketIntent(
        Capability.ANSWER if auto else Capability.MODEL,
        intent.topic if auto else intent.model,
        owner=intent.owner,
        min_fit=constraints.min_accuracy or 0.0,
        trust=_TRUST[constraints.trust],
        max_cost_usd=constraints.max_cost_usd,
        jurisdictions=constraints.jurisdictions,
        owners=constraints.owners,
        unkept=constraints.privacy is Privacy.UNKEPT,
        tokens_in=intent.tokens_in,
        tokens_out=intent.tokens_out,
        prefer=known,
        needs=mask_of((Need(intent.api.value), *intent.needs)),
        language=constraints.language,
        tokens_at_once=0
        if intent.longest_share == 1.0
        else math.ceil(intent.tokens_in * intent.longest_share),
    )
