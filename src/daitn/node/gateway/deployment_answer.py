"""A deployment's answer as it arrives."""

from __future__ import annotations

from collections.abc import Callable

from daitn.node.gateway.context import RequestContext
from daitn.node.openai_http.answers import MAX_ERROR_BYTES, IncomingAnswer
from daitn.objects.header_names import AnswerHeader
from daitn.openai.answers import StreamReader
from daitn.openai.http import EVENTS, JSON
from daitn.openai.responses import Usage
from daitn.openai.retry_after import retry_after_s
from daitn.tools import clock
from daitn.tools.http import ClientResponse

__all__ = ["Answer"]

BOUND = "gateway.max_answer_bytes"
_MAX_REPORTED_S = 1e6


class Answer:
    """Either buffered whole in `body`, or a stream that has begun."""

    def __init__(
        self,
        query: RequestContext,
        row: int,
        response: ClientResponse,
        asked_s: float,
        started_s: float,
        max_bytes: int,
    ) -> None:
        """Times are from `time.perf_counter`. `max_bytes`: limit on the whole answer."""
        self.query = query
        self.row = row
        headers = response.headers
        self._headers = headers
        self.status = response.status
        self.content_type = JSON if self.status == 200 else headers.get("content-type", JSON)
        self.asked_s = asked_s
        self.started_s = started_s
        self.ended_s = started_s
        self.waited_s = _seconds(headers.get(AnswerHeader.WAITED_S)) or 0.0
        """Wait for a slot, as the deployment reports it."""
        self.reported_first_token_s = _seconds(headers.get(AnswerHeader.FIRST_TOKEN_S))
        self.retry_after_s: float | None = None
        """When a retry may succeed, as the deployment says."""
        self.path = query.path_to(row)
        self.body = b""
        self.usage: Usage | None = None
        """Token counts, as reported in a buffered answer."""
        self.on_close: Callable[[], None] | None = None
        parsed = query.parsed
        self._incoming = IncomingAnswer(
            response, max_bytes, BOUND, api=parsed.api, choices=parsed.choices
        )

    @property
    def streams(self) -> bool:
        return self.events is not None

    @property
    def events(self) -> StreamReader | None:
        """The events read from a stream."""
        return self._incoming.events

    async def read(self, *, stream: bool) -> None:
        """Wait for the whole answer or, if a `stream` is wanted and comes, for its first content.
        Raises `AnswerBroken`."""
        incoming = self._incoming
        if stream and await incoming.begin():
            self.started_s = self.ended_s = incoming.read_at_s
            self.content_type = EVENTS
            return
        whole = await incoming.read_whole()
        self.ended_s = incoming.read_at_s
        self.body, self.usage = whole.body, whole.usage

    async def read_error(self) -> None:
        """Buffer the beginning of an error's body. Raises `AnswerBroken`."""
        self.body = await self._incoming.read_start(MAX_ERROR_BYTES)
        self.ended_s = self._incoming.read_at_s
        self.retry_after_s = retry_after_s(
            self._headers, self.body.decode(errors="replace"), clock.wall_s()
        )

    async def read_events(self) -> bytes:
        """The next events of a stream; empty once it is complete. Raises `AnswerBroken`."""
        events = await self._incoming.read_events()
        self.ended_s = self._incoming.read_at_s
        return events

    def close(self) -> None:
        """Discard what has not arrived yet. Closing twice is harmless."""
        self._incoming.close()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


def _seconds(header: str | None) -> float | None:
    try:
        value = float(header) if header is not None else None
    except ValueError:
        return None
    return value if value is not None and 0.0 <= value <= _MAX_REPORTED_S else None
