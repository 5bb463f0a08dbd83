"""Sends a query's answer to the client: whole, or event by event as it arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from daitn.node.gateway.context import RequestContext, price_usd
from daitn.node.gateway.continuation import Continuation
from daitn.node.gateway.deployment_answer import Answer
from daitn.node.gateway.observations import observed_stream, observed_whole
from daitn.node.gateway.topology import Topology
from daitn.node.openai_http.api import error_response
from daitn.objects.header_names import AnswerHeader
from daitn.objects.tokens import expected_tokens
from daitn.openai.errors import ApiError
from daitn.openai.events import AnswerBroken
from daitn.openai.folding import as_events
from daitn.openai.http import DONE, EVENTS, as_event
from daitn.openai.responses import Usage, text_of, without_counts
from daitn.tools.http import Reply, Request, Response, Stream
from daitn.topology.qrrt.observation import Observation

__all__ = ["ResponseWriter", "counted"]

_OK = Observation(failed=False)
Resume = Callable[[Answer, AnswerBroken], Awaitable[Answer]]
"""Returns an answer that starts again after one broke off, or raises `ApiError`."""


class ResponseWriter:
    """Sends one query's answer. `started`: whether bytes of it have been sent."""

    def __init__(self, request: Request, query: RequestContext, topology: Topology) -> None:
        self._request = request
        self._query = query
        self._topology = topology
        self._stream: Stream | None = None
        self._blocked_s = 0.0
        self._finished = False
        """Whether a streamed answer has been sent up to its end, though token counts may follow."""
        self._done = False
        """Whether the last event of all, too, is sent, or waits for a slow client."""
        self.whole: Callable[[], None] = lambda: None
        """Called once all of a streamed answer is here, though its client may not have read it."""
        self._recorded = False
        """Whether all of a streamed answer is charged."""

    @property
    def started(self) -> bool:
        return self._stream is not None

    @property
    def delivered(self) -> bool:
        """Whether a client has all of a streamed answer, or needs only to read it."""
        return self._finished or self._done

    def respond_whole(self, answer: Answer) -> Response:
        """Respond with a buffered answer, and record it."""
        self.record(answer)
        return self.respond(answer, answer.body)

    def record(self, answer: Answer) -> None:
        """Record the cost of a buffered answer, and the observation of its deployment."""
        query = self._query
        if answer.status == 200:
            tokens_in, tokens_out = counted(query, answer.usage, answer.body)
            query.charge(answer.row, tokens_in, tokens_out)
            deployment = query.snapshot.rows[answer.row]
            observation = observed_whole(answer, tokens_out)
            self._topology.observe(deployment.site, deployment.name, observation)

    def respond(self, answer: Answer, body: bytes) -> Response:
        """Respond with `body` as the answer; as a stream of one piece if the query asks for a
        stream."""
        query = self._query
        self._set_answered_by(answer)
        query.outcome.first_token_s = answer.ended_s - query.began_s
        headers = self._headers(answer, query.outcome.cost_usd)
        if query.parsed.stream and answer.status == 200:
            body = as_events(body, query.parsed.api, usage=query.parsed.include_usage)
            headers["content-type"] = EVENTS
        return Response(body, answer.status, headers)

    async def stream(self, answer: Answer, resume: Resume) -> Reply:
        """Pass events on as they arrive. Raises `ApiError` if the answer breaks off for good.

        A client that has the whole answer may go before its last event: `delivered` tells.
        """
        sent = Continuation()
        while True:
            try:
                await self._forward(answer, sent)
                break
            except AnswerBroken as why:
                broken = why
            except (asyncio.CancelledError, ConnectionError):
                self._charge_abandoned(answer)
                raise
            finally:
                if self.delivered:
                    self._record_stream(answer, sent)
                answer.close()
            answer = await resume(answer, broken)
            sent.restart()
        assert self._stream is not None
        await self._stream.end()
        return self._stream

    async def conclude(self) -> Reply:
        """End a stream that was delivered, without what may still follow."""
        assert self._stream is not None
        if not self._done:
            await self._stream.write(DONE)
        await self._stream.end(close=True)
        return self._stream

    async def fail(self, error: ApiError) -> Reply:
        """Respond with an error; in a stream that has started, as its last event."""
        if self._stream is None:
            response = error_response(error)
            response.headers["x-request-id"] = self._query.id
            response.headers[AnswerHeader.DECISION] = self._query.id
            return response
        await self._stream.write(as_event(error.body))
        if self._query.caller.relayed_by is not None:
            # The relaying gateway then asks a replica to resume the answer.
            self._request.abort()
            return self._stream
        await self._stream.end(close=True)
        return self._stream

    async def _forward(self, answer: Answer, sent: Continuation) -> None:
        events = answer.events
        assert events is not None
        while data := await self._read_events(answer):
            if new := sent.take(data):
                self._begin(answer)
                if events.done:  # With these, the client has all of it.
                    self._record_stream(answer, sent)
                    self._done = True
                    self.whole()
                wanted = self._query.parsed.include_usage
                await self._write(new if wanted else without_counts(new))
                self._finished = events.finished
        sent.end()

    async def _read_events(self, answer: Answer) -> bytes:
        with self._query.waiting:
            return await answer.read_events()

    def _begin(self, answer: Answer) -> None:
        """Begin the stream, unless it has begun. The head is sent with the first events, so that it
        names the deployment that really answers."""
        if self._stream is None:
            self._set_answered_by(answer)
            self._query.outcome.first_token_s = time.perf_counter() - self._query.began_s
            self._stream = self._request.stream(self._headers(answer, self._expected_usd(answer)))

    async def _write(self, data: bytes) -> None:
        assert self._stream is not None
        began_s = time.perf_counter()
        await self._stream.write(data)
        self._blocked_s += time.perf_counter() - began_s

    def _record_stream(self, answer: Answer, sent: Continuation) -> None:
        if self._recorded:
            return
        self._recorded = True
        query, events = self._query, answer.events
        assert events is not None
        self._set_answered_by(answer)
        usage = events.usage or Usage()
        tokens_in = _known(usage.prompt_tokens, query.intent.tokens_in)
        tokens_out = _known(usage.completion_tokens, events.pieces)
        query.charge(answer.row, tokens_in, tokens_out)
        deployment = query.snapshot.rows[answer.row]
        observation = (
            _OK
            if sent.resumed
            else observed_stream(answer, tokens_out, self._blocked_s, events.usage)
        )
        self._topology.observe(deployment.site, deployment.name, observation)

    def _charge_abandoned(self, answer: Answer) -> None:
        """The client left, or its time was up, in mid-answer: what was sent is charged."""
        events = answer.events
        if self.started and not self.delivered and events is not None and events.pieces:
            self._query.charge(answer.row, self._query.intent.tokens_in, events.pieces)

    def _set_answered_by(self, answer: Answer) -> None:
        outcome = self._query.outcome
        outcome.row, outcome.path = answer.row, answer.path

    def _expected_usd(self, answer: Answer) -> float:
        query, intent = self._query, self._query.intent
        usd = price_usd(query.snapshot, answer.row, intent.tokens_in, intent.priced_tokens)
        return query.outcome.cost_usd + usd

    def _headers(self, answer: Answer, cost_usd: float) -> dict[str, str]:
        query = self._query
        deployment = query.snapshot.rows[answer.row]
        overhead_s = max(0.0, time.perf_counter() - query.began_s - query.waiting.total_s)
        headers = {
            "content-type": answer.content_type,
            "x-request-id": query.id,
            AnswerHeader.DECISION: query.id,
            AnswerHeader.MODEL: deployment.name,
            AnswerHeader.FACILITY: deployment.site,
            AnswerHeader.PATH: ",".join(answer.path),
            AnswerHeader.STRATEGY: query.plan.strategy,
            AnswerHeader.COST_USD: f"{cost_usd:.9f}",
            AnswerHeader.OVERHEAD_MS: f"{overhead_s * 1e3:.3f}",
            AnswerHeader.ATTEMPTS: str(query.attempts.count),
            AnswerHeader.WAITED_S: f"{answer.waited_s:.6f}",
        }
        if query.intent.topic:
            headers[AnswerHeader.TOPIC] = quote(query.intent.topic, safe="/:,. -_")
        if answer.reported_first_token_s is not None:
            headers[AnswerHeader.FIRST_TOKEN_S] = f"{answer.reported_first_token_s:.6f}"
        return headers


def counted(query: RequestContext, usage: Usage | None, body: bytes) -> tuple[int, int]:
    """Tokens read and written for an answer in one piece: as its deployment counted them, or else
    estimated from the texts."""
    usage = usage or Usage()
    tokens_in = _known(usage.prompt_tokens, query.intent.tokens_in)
    if usage.completion_tokens is not None:
        return tokens_in, usage.completion_tokens
    text = text_of(body)
    return tokens_in, expected_tokens(text or "")


def _known(count: int | None, estimate: int) -> int:
    return estimate if count is None else count
