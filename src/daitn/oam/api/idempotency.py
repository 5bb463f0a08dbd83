"""Idempotency keys: a repeated request is not executed twice.

As the IETF's draft on the header `Idempotency-Key` has it. Answers are kept in memory: a control
centre that restarts forgets them. Jobs need them only where there is no roster: an order that its
owner signed is one job however often it is handed in.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

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
    """A request with a key."""

    request: bytes
    """Digest of the request."""
    at_s: float
    task: asyncio.Task[Response]
    """Yields the answer; it continues when its client has left."""

    @property
    def ended(self) -> bool:
        return self.task.done()

    @property
    def failed(self) -> bool:
        """Whether nothing was done."""
        return self.ended and (self.task.cancelled() or self.task.exception() is not None)

    @property
    def size(self) -> int:
        return len(self.task.result().body) if self.ended and not self.failed else 0


class Remembered:
    """The latest requests with keys, oldest first."""

    def __init__(self, now_s: Callable[[], float] = clock.elapsed_s) -> None:
        self._now_s = now_s
        self._done: dict[tuple[str, str], _Done] = {}

    async def close(self) -> None:
        """Cancel what is in progress."""
        tasks = [done.task for done in self._done.values() if not done.ended]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def once(
        self,
        request: Request,
        by: SignedIn,
        body: bytes,
        do: Callable[[], Coroutine[Any, Any, Response]],
    ) -> Response:
        """The answer to a request: from `do`, or the earlier one if its key was used before.

        One that failed was not done, and may be sent again. Raises what `do` raises, and
        `HttpProblem` for a key of another request.
        """
        key = request.headers.get("idempotency-key")
        if key is None:
            return await do()
        if not (0 < len(key) <= _MOST_KEY and key.isascii() and key.isprintable()):
            raise _bad(400, "it is not usable", f"use up to {_MOST_KEY} visible characters")
        who = by.member.public_key if by.member else ""
        asked = hashlib.sha256(b"\0".join(_parts(request, body))).digest()
        done = self._done.get((who, key))
        if done is None or done.failed:
            self._clean_up()
            done = _Done(asked, self._now_s(), asyncio.create_task(do()))
            self._done[who, key] = done
        elif done.request != asked:
            raise _bad(422, "it was used for another request", "use a new one for each")
        given = await asyncio.shield(done.task)
        return Response(given.body, given.status, given.headers)

    def _clean_up(self) -> None:
        """Forget what is too old, or too much; requests in progress stay."""
        oldest_s = self._now_s() - _KEPT_S
        size = sum(done.size for done in self._done.values())
        for key, done in list(self._done.items()):
            many = len(self._done) >= _MOST or size > _MOST_BYTES
            if done.ended and (many or done.failed or done.at_s < oldest_s):
                size -= done.size
                del self._done[key]


def _parts(request: Request, body: bytes) -> tuple[bytes, ...]:
    query = "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
    return request.method.encode(), request.path.encode(), query.encode(), body


def _bad(status: int, problem: str, fix: str) -> HttpProblem:
    return HttpProblem(status, "InvalidInput", problem, field="idempotency-key", fix=fix)
