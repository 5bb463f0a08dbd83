"""Requests that are sent again: what was done is not done twice.

As the IETF's draft on the header `Idempotency-Key` has it. Answers are kept in memory: a control
centre that restarts forgets them. Jobs need them only where there is no roster: an order that its
owner signed is one job however often it is handed in.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from daitn.oam.api.asking import SignedIn
from daitn.oam.api.problems import HttpProblem
from daitn.tools import clock
from daitn.tools.http import Request, Response

__all__ = ["Remembered"]

_KEPT_S: Final = 24 * 3600.0
_MOST: Final = 1000
_MOST_BYTES: Final = 32 << 20
_MOST_KEY: Final = 200


@dataclass
class _Done:
    """A request under a key."""

    request: bytes
    """Digest of what was asked."""
    at_s: float
    reply: Response | None = None
    """None: it is being done."""

    @property
    def size(self) -> int:
        return len(self.reply.body) if self.reply else 0


class Remembered:
    """The latest requests that had a key, oldest first."""

    def __init__(self, now_s: Callable[[], float] = clock.elapsed_s) -> None:
        self._now_s = now_s
        self._done: dict[tuple[str, str], _Done] = {}
        self._bytes = 0

    async def once(
        self, request: Request, by: SignedIn, body: bytes, do: Callable[[], Awaitable[Response]]
    ) -> Response:
        """The answer to a request: of `do`, or as before if its key was used before.

        One that failed was not done, and may be sent again. Raises `HttpProblem` for a key of
        another request, or of one that is still under way.
        """
        key = request.headers.get("idempotency-key")
        if key is None:
            return await do()
        if not (0 < len(key) <= _MOST_KEY and key.isascii() and key.isprintable()):
            raise _bad(400, "it is not usable", f"use up to {_MOST_KEY} visible characters")
        who = by.member.public_key if by.member else ""
        asked = hashlib.sha256(b"\0".join(_parts(request, body))).digest()
        known = self._done.get((who, key))
        if known is not None:
            if known.request != asked:
                raise _bad(422, "it was used for another request", "use a new one for each")
            if known.reply is None:
                raise _bad(409, "that request is still under way", "wait, then send it again")
            return Response(known.reply.body, known.reply.status, known.reply.headers)
        done = self._done[who, key] = _Done(asked, self._now_s())
        try:
            done.reply = await do()
        except (Exception, asyncio.CancelledError):
            self._done.pop((who, key), None)
            raise
        self._bytes += done.size
        self._clean_up()
        return done.reply

    def _clean_up(self) -> None:
        oldest_s = self._now_s() - _KEPT_S
        for key, done in list(self._done.items()):
            many = len(self._done) > _MOST or self._bytes > _MOST_BYTES
            if not many and done.at_s >= oldest_s:
                break
            if done.reply is not None:
                self._bytes -= done.size
                del self._done[key]


def _parts(request: Request, body: bytes) -> tuple[bytes, ...]:
    query = "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
    return request.method.encode(), request.path.encode(), query.encode(), body


def _bad(status: int, problem: str, fix: str) -> HttpProblem:
    return HttpProblem(status, "InvalidInput", problem, field="idempotency-key", fix=fix)
