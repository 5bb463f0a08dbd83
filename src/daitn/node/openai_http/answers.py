"""Reads answers of OpenAI's API from responses, whole or event by event, up to their end."""

from __future__ import annotations

import asyncio
import time

from daitn.objects.deployments import Api
from daitn.openai.answers import StreamReader, WholeAnswer, read_whole
from daitn.openai.events import AnswerBroken, looks_like_events
from daitn.openai.folding import folded
from daitn.tools.http.client_connection import ClientResponse, HttpError, ServerTimeout

__all__ = ["MAX_ERROR_BYTES", "IncomingAnswer"]

MAX_ERROR_BYTES = 1 << 16
"""Maximum bytes read of an error's body."""
LINGER_S = 5.0
"""How long a finished stream is read further for token counts and `[DONE]`. Servers send them at
once; some say with every piece that it is the last."""


class IncomingAnswer:
    """One response that holds an answer. Every method that reads raises `AnswerBroken`."""

    def __init__(
        self,
        response: ClientResponse,
        max_bytes: int,
        bound: str,
        *,
        api: Api = Api.CHAT,
        choices: int = 1,
        model: str | None = None,
    ) -> None:
        """For the arguments see `read_whole`."""
        self._response = response
        self._max_bytes = max_bytes
        self._bound = bound
        self._api = api
        self._choices = choices
        self._model = model
        self._head = b""
        self._ready = b""
        self.events: StreamReader | None = None
        """Events of a stream that has begun."""
        self.read_at_s = 0.0
        """When the latest bytes came, on the clock of `time.perf_counter`."""

    async def begin(self) -> bool:
        """Wait for the first content of a stream; false if the answer comes whole, whatever was
        requested and whatever the content type is. Beginning twice is harmless."""
        if self._head:
            return self.events is not None
        events: bool | None = None
        while events is None and (chunk := await self._read()):
            self._head += chunk
            events = looks_like_events(self._head)
        if not self._head:
            raise AnswerBroken("its answer is empty")
        if not events:
            return False
        reader = self.events = StreamReader(
            self._max_bytes,
            self._bound,
            api=self._api,
            choices=self._choices,
            model=self._model,
        )
        self._ready = reader.feed(self._head)
        while not reader.has_content:
            chunk = await self._read()
            self._ready += reader.feed(chunk) if chunk else reader.end()
        return True

    async def read_events(self) -> bytes:
        """The next events; empty once the stream is complete."""
        reader = self.events
        assert reader is not None
        if self._ready:
            events, self._ready = self._ready, b""
            return events
        while not reader.done:
            why = ""
            try:
                chunk = await self._read_on() if reader.finished else await self._read()
            except AnswerBroken as broken:
                chunk, why = b"", broken.reason
            if events := reader.feed(chunk) if chunk else reader.end(why):
                return events
        return b""

    async def read_whole(self) -> WholeAnswer:
        """The answer in one piece; an unrequested stream is assembled."""
        if await self.begin():
            events = []
            while part := await self.read_events():
                events.append(part)
            body = folded(b"".join(events))
        else:
            body = await self._read_rest()
        return read_whole(
            body,
            self._max_bytes,
            self._bound,
            api=self._api,
            choices=self._choices,
            model=self._model,
        )

    async def _read_rest(self) -> bytes:
        parts, size = [self._head], len(self._head)
        try:
            while chunk := await self._read():
                parts.append(chunk)
                size += len(chunk)
                if size > self._max_bytes:
                    break
        except AnswerBroken:
            if not parts[-1].rstrip().endswith(b"}"):
                raise  # Otherwise what counts is whether the object is whole, not how it was sent.
        return b"".join(parts)

    async def read_start(self, max_bytes: int) -> bytes:
        """The raw body of an error, up to `max_bytes`."""
        parts, size = [], 0
        while size < max_bytes and (chunk := await self._read()):
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts)[:max_bytes]

    def close(self) -> None:
        """Discard what has not arrived yet. Closing twice is harmless."""
        if self.events is not None and self.events.done:
            self._response.release()
        else:
            self._response.close()

    async def _read(self) -> bytes:
        try:
            chunk = await self._response.read_chunk()
        except ServerTimeout:
            raise AnswerBroken("it was silent for too long") from None
        except HttpError as error:
            raise AnswerBroken(f"its answer broke off: {error}") from None
        self.read_at_s = time.perf_counter()
        return chunk

    async def _read_on(self) -> bytes:
        try:
            async with asyncio.timeout(LINGER_S):
                return await self._read()
        except TimeoutError:
            return b""
