"""Autonomous queries: sent as packets that the forwarders route."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import msgspec

from daitn.control.queries.context import QueryPlan
from daitn.node.forwarder.query_client import PacketAnswer
from daitn.node.forwarder.query_service import PacketQuestion, PacketReply
from daitn.node.gateway.answer_writer import counted
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.errors import unavailable
from daitn.node.gateway.voting import winner
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.header_names import AnswerHeader
from daitn.objects.queries import AUTO, QueryIntent, Strategy
from daitn.openai.answers import read_whole
from daitn.openai.errors import from_daitn_error
from daitn.openai.events import AnswerBroken
from daitn.openai.folding import as_events
from daitn.openai.http import EVENTS, JSON
from daitn.steering.wire.packet import MOST_PAYLOAD_BYTES
from daitn.tools.http import Response
from daitn.tools.monitoring.tracing import SpanKind
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["Packets", "answer_by_packet", "packet_plan"]


class Packets(Protocol):
    """Sends queries into the network, hop by hop."""

    async def ask(self, intent: QueryIntent, question: PacketQuestion) -> tuple[PacketAnswer, ...]:
        """At least one answer. Raises `ApiError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Vote:
    """One answer, and its row if this gateway knows the deployment."""

    packet_answer: PacketAnswer
    row: int | None
    """None for a facility unknown to this gateway, whose price is unknown too."""
    body: bytes
    """The answer, as it was read."""

    @property
    def reply(self) -> PacketReply:
        return self.packet_answer.answered


def packet_plan(intent: QueryIntent) -> QueryPlan:
    """A plan without rows: the packets of a query choose their own deployments."""
    if intent.constraints.strategy is Strategy.ENSEMBLE:
        members = intent.constraints.members
        return QueryPlan(strategy=Strategy.ENSEMBLE, rows=(), members=members)
    return QueryPlan(strategy=Strategy.SINGLE, rows=())


async def answer_by_packet(packets: Packets, query: RequestContext) -> Response:
    """Send a query with a packet plan and return its answer. Raises `ApiError`."""
    whole = {"stream": False, "stream_options": None} if query.parsed.api.writes else {}
    body = query.parsed.body(query.parsed.model, whole)
    question = PacketQuestion(
        query.parsed.api,
        body,
        query.id,
        query.asked_at_s,
        mandate=query.caller.mandate,
        traceparent=query.traceparent,
    )
    query.attempts.count = query.plan.members
    intent = query.intent
    if query.caller.relayed_by is not None:
        # The answering facility sees that this gateway signed, not the one that has the mandate.
        intent = msgspec.structs.replace(intent, owner="")
    try:
        with query.waiting:
            answers = await _asked(packets, query, intent, question)
    except InvalidInput as error:
        raise from_daitn_error(error) from None
    except DaitnError as error:
        raise unavailable(error.problem) from None
    query.outcome.first_token_s = time.perf_counter() - query.began_s
    votes = _votes(query, answers)
    best = winner(query, [(vote.row, vote.body) for vote in votes])
    return _response(query, votes[best], votes)


async def _asked(
    packets: Packets, query: RequestContext, intent: QueryIntent, question: PacketQuestion
) -> tuple[PacketAnswer, ...]:
    if query.span is None:
        return await packets.ask(intent, question)
    with query.span.child("packet", SpanKind.CLIENT) as span:
        traced = msgspec.structs.replace(question, traceparent=span.context.traceparent)
        return await packets.ask(intent, traced)


def _votes(query: RequestContext, answers: Sequence[PacketAnswer]) -> list[_Vote]:
    """The valid answers, one per deployment. All readable ones are charged."""
    votes: dict[tuple[str, str], _Vote] = {}
    reasons: list[str] = []
    for answer in answers:
        reply = answer.answered
        try:
            whole = read_whole(
                reply.body,
                MOST_PAYLOAD_BYTES,
                "a packet",
                api=query.parsed.api,
                choices=query.parsed.choices,
            )
        except AnswerBroken as broken:
            reasons.append(f"{reply.deployment}@{reply.site}: {broken.reason}")
            continue
        row = query.snapshot.row_of.get(deployment_id(reply.deployment, reply.site))
        if not _is_asked_for(query, row):
            continue
        query.charge(row, *counted(query, whole.usage, whole.body))
        votes.setdefault((reply.site, reply.deployment), _Vote(answer, row, whole.body))
    if not votes:
        why = "; ".join(reasons) or "none is of the model that was asked for"
        raise unavailable(f"no answer can be given: {why}")
    return [*votes.values()]


def _is_asked_for(query: RequestContext, row: int | None) -> bool:
    """Whether a deployment may answer under the requested name; for one that is unknown here,
    nobody can tell."""
    model = query.intent.model
    return row is None or model == AUTO or model in query.snapshot.rows[row].called


def _response(query: RequestContext, winning: _Vote, votes: Sequence[_Vote]) -> Response:
    reply, packet_answer = winning.reply, winning.packet_answer
    outcome = query.outcome
    outcome.path, outcome.object_id = packet_answer.path, packet_answer.object_id
    if winning.row is not None:
        outcome.row = winning.row
    headers = {
        "content-type": JSON,
        "x-request-id": query.id,
        AnswerHeader.DECISION: query.id,
        AnswerHeader.OBJECT: packet_answer.object_id,
        AnswerHeader.MODEL: quote(reply.deployment),
        AnswerHeader.FACILITY: quote(reply.site),
        AnswerHeader.PATH: ",".join(packet_answer.path),
        AnswerHeader.STRATEGY: "packet",
        AnswerHeader.COST_USD: f"{outcome.cost_usd:.9f}",
    }
    if query.plan.strategy is Strategy.ENSEMBLE:
        headers[AnswerHeader.STRATEGY] = "packet, ensemble"
        headers[AnswerHeader.FACILITIES] = ",".join(quote(vote.reply.site) for vote in votes)
    body = winning.body
    if query.parsed.stream:
        body = as_events(body, query.parsed.api, usage=query.parsed.include_usage)
        headers["content-type"] = EVENTS
    return Response(body, 200, headers)
