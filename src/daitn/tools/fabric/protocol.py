"""The messaging seam: everything that DA-ITN sends over a network goes through `Fabric`.

The two carriers are beside this file: `zenoh.py` (the real one) and `memory.py` (its in-memory
twin). `signed.py` wraps either, so that everybody proves who they are. All pass the same contract
test. Key expressions are Zenoh's: `/`-separated, `*` for one part, `**` for any number of parts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["Accepts", "Alive", "Carrier", "Fabric", "Give", "Handler", "Message", "Registration"]

T = TypeVar("T")

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Answers a request: (key, payload) -> answer. Its `DaitnError`s reach the requester."""
Give = Callable[[str, bytes], bytes]
"""Answers a bulk request, on a thread: (key, payload) -> answer."""
Message = Callable[[str, bytes], Awaitable[None]]
"""Receives a publication: (key, payload)."""
Alive = Callable[[str, bool], Awaitable[None]]
"""Receives a change: the token `key` appeared (True) or vanished (False)."""

Accepts = Callable[[bytes], bool]
"""Whether an answer counts. Runs on the event loop."""


class Registration(Protocol):
    """Something declared on the fabric."""

    async def close(self) -> None:
        """Undeclare it. Closing twice is harmless."""
        ...


class Fabric(Protocol):
    """A session. Every coroutine runs on the event loop that opened it."""

    async def publish(self, key: str, payload: bytes) -> None:
        """Send to all current subscribers; having none is not an error."""
        ...

    async def subscribe(self, pattern: str, message: Message) -> Registration:
        """Receive publications, in order per publisher and one at a time."""
        ...

    async def request(self, key: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send a request to the server of `key`.

        Raises `Unreachable` when nobody serves it or no answer came within `timeout_s`, and the
        `DaitnError` that the handler raised.
        """
        ...

    async def request_bulk(
        self, key: str, payload: bytes, *, timeout_s: float, take: Callable[[bytes], T]
    ) -> T:
        """Send a request with a large answer that yields to all others; returns `take(answer)`.

        `take` runs on a thread. One that runs when the caller is cancelled, or when `timeout_s`
        ends, is waited for. Raises what `request` raises, and what `take` raises.
        """
        ...

    async def serve(self, key: str, handler: Handler) -> Registration:
        """Answer requests. Requests are handled concurrently."""
        ...

    async def serve_bulk(self, key: str, give: Give) -> Registration:
        """Answer requests, bulk ones and others, on threads: large answers keep off the loop."""
        ...

    async def announce(self, key: str) -> Registration:
        """Show a liveliness token until it is closed or this process dies."""
        ...

    async def watch(self, pattern: str, alive: Alive) -> Registration:
        """Watch tokens; existing ones are reported first."""
        ...

    async def close(self) -> None: ...


class Carrier(Fabric, Protocol):
    """A fabric that carries bytes and proves nobody's identity."""

    async def request(
        self,
        key: str,
        payload: bytes,
        *,
        timeout_s: float,
        accepts: Accepts | None = None,
    ) -> bytes:
        """See `Fabric.request`. Anybody can serve any key, so with `accepts` all servers of it are
        asked, and the first answer that `accepts` admits counts; others, and errors, are
        ignored."""
        ...
