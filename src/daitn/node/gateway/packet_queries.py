"""Queries that a gateway lets set out as packets, instead of deciding where they go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from daitn.control.queries.context import QueryPlan
from daitn.node.forwarder.query_client import PacketAnswer
from daitn.node.forwarder.query_service import PacketQuestion, PacketReply
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.errors import unavailable
from daitn.node.gateway.voting import winner
from daitn.node.http import Response
from daitn.objects.queries import QueryIntent, Strategy
from daitn.openai.http import EVENTS, JSON
from daitn.openai.responses import NotJson, as_events, read_usage
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["Packets", "by_packet", "packet_plan"]


class Packets(Protocol):
    """Asks the network hop by hop."""

    async def ask(self, intent: QueryIntent, question: PacketQuestion) -> tuple[PacketAnswer, ...]:
        """One answer at least. Raises `ApiError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Voice:
    """One answer, as far as this gateway can place it."""

    steered: PacketAnswer
    row: int | None
    """None of a facility of which it has not heard: that has no price here."""

    @property
    def answered(self) -> PacketReply:
        return self.steered.answered


def packet_plan(intent: QueryIntent) -> QueryPlan:
    """No rows: the query, or the copies of an ensemble, find their own."""
    if intent.constraints.strategy is Strategy.ENSEMBLE:
        members = intent.constraints.members
        return QueryPlan(strategy=Strategy.ENSEMBLE, rows=(), members=members)
    return QueryPlan(strategy=Strategy.SINGLE, rows=())


async def by_packet(packets: Packets, query: RequestContext) -> Response:
    """Let a query with a packet plan find its own way. Raises `ApiError`."""
    body = query.parsed.body(query.parsed.model, {"stream": False, "stream_options": None})
    question = PacketQuestion(query.parsed.api, body, query.id, query.asked_at_s)
    query.attempts.count = query.plan.members
    with query.waiting:
        steered = await packets.ask(query.intent, question)
    query.outcome.first_token_s = time.perf_counter() - query.began_s
    voices = _voices(query, steered)
    best = winner(query, [(voice.row, voice.answered.body) for voice in voices])
    return _response(query, voices[best], voices)


def _voices(query: RequestContext, steered: Sequence[PacketAnswer]) -> list[_Voice]:
    """The answers that count, one of each deployment. All that can be read are paid for."""
    voices: dict[tuple[str, str], _Voice] = {}
    for one in steered:
        answered = one.answered
        try:
            usage = read_usage(answered.body)
        except NotJson:
            continue
        row = query.snapshot.row_of.get(deployment_id(answered.deployment, answered.site))
        query.outcome.charge(
            query.snapshot,
            row,
            usage.prompt_tokens if usage else query.intent.tokens_in,
            usage.completion_tokens if usage else 0,
        )
        voices.setdefault((answered.site, answered.deployment), _Voice(one, row))
    if not voices:
        raise unavailable("what was answered is no JSON")
    return [*voices.values()]


def _response(query: RequestContext, given: _Voice, voices: Sequence[_Voice]) -> Response:
    answered, steered = given.answered, given.steered
    outcome = query.outcome
    outcome.path, outcome.object_id = steered.path, steered.object_id
    if given.row is not None:
        outcome.row = given.row
    headers = {
        "content-type": JSON,
        "x-request-id": query.id,
        "daitn-decision": query.id,
        "daitn-object": steered.object_id,
        "daitn-model": quote(answered.deployment),
        "daitn-facility": quote(answered.site),
        "daitn-path": ",".join(steered.path),
        "daitn-strategy": "packet",
        "daitn-cost-usd": f"{outcome.cost_usd:.9f}",
    }
    if query.plan.strategy is Strategy.ENSEMBLE:
        headers["daitn-strategy"] = "packet, ensemble"
        headers["daitn-facilities"] = ",".join(quote(voice.answered.site) for voice in voices)
    body = answered.body
    if query.parsed.stream:
        body = as_events(body, query.parsed.api)
        headers["content-type"] = EVENTS
    return Response(body, 200, headers)
