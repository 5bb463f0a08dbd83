"""An answer of a deployment as it comes in."""

from __future__ import annotations

import time
from collections.abc import Callable

from daitn.node.gateway.context import RequestContext
from daitn.node.http import FellSilent, HttpAnswer, HttpFailed
from daitn.openai.events import AnswerBroken
from daitn.openai.http import EVENTS, JSON
from daitn.openai.responses import Usage

__all__ = ["Answer"]

MOST_BYTES = 1 << 25
"""Of an answer that is held whole: 2,048 embeddings of 1,024 numbers with 16 characters each."""
_MOST_WAITED_S = 1e6


class Answer:
    """Held whole in `body`, or a stream whose pieces are read one after the other."""

    def __init__(
        self,
        query: RequestContext,
        row: int,
        response: HttpAnswer,
        asked_s: float,
        begun_s: float,
    ) -> None:
        """Times on the clock of `time.perf_counter`."""
        self.query = query
        self.row = row
        headers = response.headers
        self.status = response.status
        self.content_type = headers.get("content-type", JSON)
        self.asked_s = asked_s
        self.begun_s = begun_s
        self.ended_s = begun_s
        self.waited_s = _seconds(headers.get("daitn-waited-s")) or 0.0
        """Before the deployment had a slot for it, as it says."""
        self.told_first_s = _seconds(headers.get("daitn-first-token-s"))
        self.retry_after_s = _seconds(headers.get("retry-after"))
        self.path = query.path_to(row)
        self.body = b""
        self.usage: Usage | None = None
        """What an answer that is held whole says that it took."""
        self.streams = False
        self.on_close: Callable[[], None] | None = None
        self._first = b""
        self._response = response

    @property
    def is_events(self) -> bool:
        return self.content_type.startswith(EVENTS)

    async def read_whole(self, most: int = MOST_BYTES) -> None:
        """Read it into `body`. Raises `AnswerBroken`, where it is too long too."""
        pieces, size = [], 0
        while piece := await self.piece():
            size += len(piece)
            if size > most:
                raise AnswerBroken(f"its answer is longer than {most} bytes")
            pieces.append(piece)
        self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_first(self) -> None:
        """See that a stream really begins. Raises `AnswerBroken`."""
        self._first = await self.piece()
        self.begun_s = self.ended_s
        if not self._first:
            raise AnswerBroken("its answer is empty")

    async def piece(self) -> bytes:
        """The next bytes; empty at the end. Raises `AnswerBroken`."""
        if self._first:
            piece, self._first = self._first, b""
            return piece
        try:
            piece = await self._response.piece()
        except FellSilent:
            raise AnswerBroken("it fell silent") from None
        except HttpFailed as error:
            raise AnswerBroken(f"its answer broke off: {error}") from None
        self.ended_s = time.perf_counter()
        return piece

    def close(self) -> None:
        """Done with it; what has not come yet is not wanted. Closing twice is harmless."""
        self._response.close()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


def _seconds(header: str | None) -> float | None:
    try:
        value = float(header) if header is not None else None
    except ValueError:
        return None
    return value if value is not None and 0.0 <= value <= _MOST_WAITED_S else None
