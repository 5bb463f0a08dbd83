"""A deployment's answer as it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable

from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.headers import AnswerHeader
from daitn.node.http import ClientResponse, HttpError, ServerTimeout
from daitn.openai.events import AnswerBroken
from daitn.openai.http import EVENTS, JSON
from daitn.openai.responses import Usage

__all__ = ["Answer"]

MAX_ANSWER_BYTES = 1 << 25
"""Largest buffered answer: 2,048 embeddings of 1,024 numbers with 16 characters each."""
_MAX_REPORTED_S = 1e6


class Answer:
    """Either buffered whole in `body`, or a stream that is read chunk by chunk."""

    def __init__(
        self,
        query: RequestContext,
        row: int,
        response: ClientResponse,
        asked_s: float,
        started_s: float,
    ) -> None:
        """Times are of `time.perf_counter`."""
        self.query = query
        self.row = row
        headers = response.headers
        self.status = response.status
        self.content_type = headers.get("content-type", JSON)
        self.asked_s = asked_s
        self.started_s = started_s
        self.ended_s = started_s
        self.waited_s = _seconds(headers.get(AnswerHeader.WAITED_S)) or 0.0
        """Wait for a slot, as the deployment reports it."""
        self.reported_first_token_s = _seconds(headers.get(AnswerHeader.FIRST_TOKEN_S))
        self.retry_after_s = _seconds(headers.get("retry-after"))
        self.path = query.path_to(row)
        self.body = b""
        self.usage: Usage | None = None
        """Token counts, as a buffered answer reports them."""
        self.streams = False
        self.on_close: Callable[[], None] | None = None
        self._first = b""
        self._response = response

    @property
    def is_events(self) -> bool:
        return self.content_type.startswith(EVENTS)

    async def read_whole(self, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        """Buffer the answer in `body`. Raises `AnswerBroken`, also for more than `max_bytes`."""
        chunks, size = [], 0
        while chunk := await self.read_chunk():
            size += len(chunk)
            if size > max_bytes:
                raise AnswerBroken(f"its answer is longer than {max_bytes} bytes")
            chunks.append(chunk)
        self.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_first(self) -> None:
        """Wait for the first chunk of a stream. Raises `AnswerBroken`."""
        self._first = await self.read_chunk()
        self.started_s = self.ended_s
        if not self._first:
            raise AnswerBroken("its answer is empty")

    async def read_chunk(self) -> bytes:
        """The next bytes; empty at the end. Raises `AnswerBroken`."""
        if self._first:
            chunk, self._first = self._first, b""
            return chunk
        try:
            chunk = await self._response.read_chunk()
        except ServerTimeout:
            raise AnswerBroken("it was silent for too long") from None
        except HttpError as error:
            raise AnswerBroken(f"its answer broke off: {error}") from None
        self.ended_s = time.perf_counter()
        return chunk

    def close(self) -> None:
        """Discard what has not arrived yet. Closing twice is harmless."""
        self._response.close()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


def _seconds(header: str | None) -> float | None:
    try:
        value = float(header) if header is not None else None
    except ValueError:
        return None
    return value if value is not None and 0.0 <= value <= _MAX_REPORTED_S else None
