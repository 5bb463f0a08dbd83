"""Giving an answer to who asked: whole, or event by event as it comes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from daitn.node.gateway.answer import Answer
from daitn.node.gateway.context import RequestContext, price_usd
from daitn.node.gateway.observations import seen_stream, seen_whole
from daitn.node.gateway.topology import Topology
from daitn.node.http import Reply, Request, Response, Stream
from daitn.node.http.api import refused
from daitn.openai.errors import ApiError
from daitn.openai.events import AnswerBroken, EventReader
from daitn.openai.http import EVENTS, as_event
from daitn.openai.responses import as_events
from daitn.topology.qrrt.observation import Observation

__all__ = ["ResponseWriter"]

_OK = Observation(failed=False)
Resume = Callable[[Answer, AnswerBroken], Awaitable[Answer]]
"""Gets an answer that begins anew after one broke off, or raises `ApiError`."""


class ResponseWriter:
    """How one query's answer goes out. `begun`: its first bytes are on their way."""

    def __init__(self, request: Request, query: RequestContext, topology: Topology) -> None:
        self._request = request
        self._query = query
        self._topology = topology
        self._out: Stream | None = None
        self._held_s = 0.0

    @property
    def begun(self) -> bool:
        return self._out is not None

    def whole(self, answer: Answer) -> Response:
        """An answer that came whole, counted and observed."""
        self.count(answer)
        return self.counted(answer, answer.body)

    def count(self, answer: Answer) -> None:
        """Count what a whole answer cost, and what was seen of its deployment."""
        query, usage = self._query, answer.usage
        tokens_in = usage.prompt_tokens if usage else query.intent.tokens_in
        tokens_out = usage.completion_tokens if usage else 0
        if answer.status == 200:
            query.outcome.charge(query.snapshot, answer.row, tokens_in, tokens_out)
            deployed = query.snapshot.rows[answer.row]
            seen = seen_whole(answer, tokens_out)
            self._topology.observe(deployed.site, deployed.name, seen)

    def counted(self, answer: Answer, body: bytes) -> Response:
        """Give out `body` as the answer, as a stream of one piece where a stream was wished."""
        query = self._query
        self._given(answer)
        query.outcome.first_token_s = answer.ended_s - query.began_s
        headers = self._headers(answer, query.outcome.cost_usd)
        if query.parsed.stream and not answer.is_events and answer.status == 200:
            body = as_events(body, query.parsed.api)
            headers["content-type"] = EVENTS
        return Response(body, answer.status, headers)

    async def stream(self, answer: Answer, resume: Resume) -> Reply:
        """Give events as they come. Raises `ApiError` where the answer breaks off for good."""
        events = EventReader()
        while True:
            try:
                await self._pass_on(answer, events)
                break
            except AnswerBroken as why:
                broken = why
            finally:
                answer.close()
            answer = await resume(answer, broken)
            events.again()
        self._count_stream(answer, events)
        assert self._out is not None
        await self._out.end()
        return self._out

    async def fail(self, error: ApiError) -> Reply:
        """Say that there is no answer; in a stream that has begun, as its last event."""
        if self._out is None:
            response = refused(error)
            response.headers["x-request-id"] = response.headers["daitn-decision"] = self._query.id
            return response
        if self._query.caller.relayed_by is not None:
            # The gateway that asked goes on with a replica where an answer breaks off.
            self._request.abort()
            return self._out
        await self._out.write(as_event(error.body))
        await self._out.end(close=True)
        return self._out

    async def _pass_on(self, answer: Answer, events: EventReader) -> None:
        while piece := await self._piece(answer):
            if data := events.take(piece):
                await self._write(answer, data)
        if rest := events.rest():
            await self._write(answer, rest)
        if not events.given:
            raise AnswerBroken("its answer is empty")

    async def _piece(self, answer: Answer) -> bytes:
        with self._query.waiting:
            return await answer.piece()

    async def _write(self, answer: Answer, data: bytes) -> None:
        """The head goes out with the first events, so that it names who really answers."""
        if self._out is None:
            self._given(answer)
            self._query.outcome.first_token_s = time.perf_counter() - self._query.began_s
            self._out = self._request.stream(self._headers(answer, self._expected_usd(answer)))
        began_s = time.perf_counter()
        await self._out.write(data)
        self._held_s += time.perf_counter() - began_s

    def _count_stream(self, answer: Answer, events: EventReader) -> None:
        query, usage = self._query, events.usage
        self._given(answer)
        # An event carries about one token; the last two say why the answer ends, and that it does.
        tokens_out = usage.completion_tokens if usage else max(0, events.count - 2)
        tokens_in = usage.prompt_tokens if usage else query.intent.tokens_in
        query.outcome.charge(query.snapshot, answer.row, tokens_in, tokens_out)
        deployed = query.snapshot.rows[answer.row]
        seen = _OK if events.resumed else seen_stream(answer, tokens_out, self._held_s)
        self._topology.observe(deployed.site, deployed.name, seen)

    def _given(self, answer: Answer) -> None:
        outcome = self._query.outcome
        outcome.row, outcome.path = answer.row, answer.path

    def _expected_usd(self, answer: Answer) -> float:
        query, intent = self._query, self._query.intent
        usd = price_usd(query.snapshot, answer.row, intent.tokens_in, intent.tokens_out)
        return query.outcome.cost_usd + usd

    def _headers(self, answer: Answer, cost_usd: float) -> dict[str, str]:
        query = self._query
        deployed = query.snapshot.rows[answer.row]
        overhead_s = max(0.0, time.perf_counter() - query.began_s - query.waiting.total_s)
        headers = {
            "content-type": answer.content_type,
            "x-request-id": query.id,
            "daitn-decision": query.id,
            "daitn-model": deployed.name,
            "daitn-facility": deployed.site,
            "daitn-path": ",".join(answer.path),
            "daitn-strategy": query.plan.strategy,
            "daitn-cost-usd": f"{cost_usd:.9f}",
            "daitn-overhead-ms": f"{overhead_s * 1e3:.3f}",
            "daitn-attempts": str(query.attempts.count),
            "daitn-waited-s": f"{answer.waited_s:.6f}",
        }
        if query.intent.topic:
            headers["daitn-topic"] = quote(query.intent.topic, safe="/:,. -_")
        if answer.told_first_s is not None:
            headers["daitn-first-token-s"] = f"{answer.told_first_s:.6f}"
        return headers
