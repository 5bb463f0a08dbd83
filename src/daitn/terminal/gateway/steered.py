"""Queries that a gateway lets set out as packets, instead of deciding where they go."""

from __future__ import annotations

import time
from typing import Protocol
from urllib.parse import quote

from daitn.objects.queries import QueryIntent
from daitn.terminal.forwarder.answering import Question
from daitn.terminal.forwarder.asking import Steered
from daitn.terminal.gateway.bodies import as_events, read_usage
from daitn.terminal.gateway.course import Course
from daitn.terminal.http import Response
from daitn.terminal.openai_api import EVENTS, JSON
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["Packets", "by_packet"]


class Packets(Protocol):
    """Asks the network hop by hop."""

    async def ask(self, intent: QueryIntent, question: Question) -> Steered:
        """Raises `ApiError`."""
        ...


async def by_packet(packets: Packets, course: Course) -> Response:
    """Let the query find its own way. Raises `ApiError`."""
    body = course.asked.body(course.asked.model, {"stream": False, "stream_options": None})
    question = Question(course.asked.api, body, course.id, course.asked_at_s)
    began_s = time.perf_counter()
    course.attempts = 1
    steered = await packets.ask(course.intent, question)
    course.away_s = time.perf_counter() - began_s
    _count(course, steered)
    return _response(course, steered)


def _count(course: Course, steered: Steered) -> None:
    answered = steered.answered
    course.path = steered.path
    course.first_token_s = time.perf_counter() - course.began_s
    usage = read_usage(answered.body)
    tokens_in = usage.prompt_tokens if usage else course.intent.tokens_in
    tokens_out = usage.completion_tokens if usage else 0
    # A facility of which this gateway has not heard has no price here.
    row = course.snapshot.row_of.get(deployment_id(answered.deployment, answered.site))
    if row is None:
        course.tokens_in, course.tokens_out = tokens_in, tokens_out
    else:
        course.row = row
        course.charge(row, tokens_in, tokens_out)


def _response(course: Course, steered: Steered) -> Response:
    answered = steered.answered
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
    body = answered.body
    if course.asked.stream:
        body = as_events(body, course.asked.api)
        headers["content-type"] = EVENTS
    return Response(body, 200, headers)
