"""Queries that a gateway lets set out as packets, instead of deciding where they go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from daitn.control.queries.context import QueryPlan
from daitn.objects.queries import QueryIntent, Strategy
from daitn.terminal.forwarder.answering import Answered, Question
from daitn.terminal.forwarder.asking import Steered
from daitn.terminal.gateway.bodies import NotJson, as_events, read_usage
from daitn.terminal.gateway.course import Course
from daitn.terminal.gateway.refusals import unavailable
from daitn.terminal.gateway.voting import winner
from daitn.terminal.http import Response
from daitn.terminal.openai_api import EVENTS, JSON
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["Packets", "by_packet"]


class Packets(Protocol):
    """Asks the network hop by hop."""

    async def ask(self, intent: QueryIntent, question: Question) -> tuple[Steered, ...]:
        """One answer at least. Raises `ApiError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Voice:
    """One answer, as far as this gateway can place it."""

    steered: Steered
    row: int | None
    """None of a facility of which it has not heard: that has no price here."""

    @property
    def answered(self) -> Answered:
        return self.steered.answered


async def by_packet(packets: Packets, course: Course) -> Response:
    """Let the query, or the copies of an ensemble, find their own way. Raises `ApiError`."""
    body = course.asked.body(course.asked.model, {"stream": False, "stream_options": None})
    question = Question(course.asked.api, body, course.id, course.asked_at_s)
    wishes = course.intent.wishes
    ensemble = wishes.strategy is Strategy.ENSEMBLE
    if ensemble:
        course.plan = QueryPlan(strategy=Strategy.ENSEMBLE, rows=())
    course.attempts = wishes.members if ensemble else 1
    began_s = time.perf_counter()
    steered = await packets.ask(course.intent, question)
    course.away_s = time.perf_counter() - began_s
    course.first_token_s = time.perf_counter() - course.began_s
    voices = _voices(course, steered)
    best = winner(course, [(voice.row, voice.answered.body) for voice in voices])
    return _response(course, voices[best], voices)


def _voices(course: Course, steered: Sequence[Steered]) -> list[_Voice]:
    """The answers that count, one of each deployment. All that can be read are paid for."""
    voices: dict[tuple[str, str], _Voice] = {}
    for one in steered:
        answered = one.answered
        try:
            usage = read_usage(answered.body)
        except NotJson:
            continue
        row = course.snapshot.row_of.get(deployment_id(answered.deployment, answered.site))
        course.charge(
            row,
            usage.prompt_tokens if usage else course.intent.tokens_in,
            usage.completion_tokens if usage else 0,
        )
        voices.setdefault((answered.site, answered.deployment), _Voice(one, row))
    if not voices:
        raise unavailable("what was answered is no JSON")
    return [*voices.values()]


def _response(course: Course, given: _Voice, voices: Sequence[_Voice]) -> Response:
    answered, steered = given.answered, given.steered
    course.path, course.object_id = steered.path, steered.object_id
    if given.row is not None:
        course.row = given.row
    headers = {
        "content-type": JSON,
        "x-request-id": course.id,
        "daitn-decision": course.id,
        "daitn-object": steered.object_id,
        "daitn-model": quote(answered.deployment),
        "daitn-facility": quote(answered.site),
        "daitn-path": ",".join(steered.path),
        "daitn-strategy": "packet",
        "daitn-cost-usd": f"{course.cost_usd:.9f}",
    }
    if course.plan.strategy is Strategy.ENSEMBLE:
        headers["daitn-strategy"] = "packet, ensemble"
        headers["daitn-facilities"] = ",".join(quote(voice.answered.site) for voice in voices)
    body = answered.body
    if course.asked.stream:
        body = as_events(body, course.asked.api)
        headers["content-type"] = EVENTS
    return Response(body, 200, headers)
