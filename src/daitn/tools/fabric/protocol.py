"""The messaging seam: everything that DA-ITN says over a network goes through `Fabric`.

Two implementations stand beside this file: `zenoh.py` (the real one) and `memory.py` (its
in-memory twin); both pass the same contract test. Key expressions are Zenoh's: `/`-separated,
`*` for one part, `**` for any number of parts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

__all__ = ["Alive", "Fabric", "Handler", "Message", "Registration"]

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Answers a request: (key, payload) -> answer. A `DaitnError` it raises reaches the asker."""
Message = Callable[[str, bytes], Awaitable[None]]
"""Takes a publication: (key, payload)."""
Alive = Callable[[str, bool], Awaitable[None]]
"""Hears that the token `key` appeared (True) or vanished (False)."""


class Registration(Protocol):
    """Something declared on the fabric."""

    async def close(self) -> None:
        """Take it back. Closing twice is harmless."""
        ...


class Fabric(Protocol):
    """A session. Every coroutine runs on the event loop that opened it."""

    async def publish(self, key: str, payload: bytes) -> None:
        """Send to all who subscribe now; nobody listening is no error."""
        ...

    async def subscribe(self, pattern: str, message: Message) -> Registration:
        """Hear publications. Per publisher they arrive in order and are handled one at a time."""
        ...

    async def request(
        self, key: str, payload: bytes, *, timeout_s: float, bulk: bool = False
    ) -> bytes:
        """Ask the one who serves `key`. A `bulk` answer travels behind all others.

        Raises `Unreachable` when nobody serves it or no answer came within `timeout_s`, and
        the `DaitnError` that the handler raised.
        """
        ...

    async def serve(self, key: str, handler: Handler) -> Registration:
        """Answer requests. Requests are handled concurrently."""
        ...

    async def announce(self, key: str) -> Registration:
        """Show a liveliness token until it is closed or this process dies."""
        ...

    async def watch(self, pattern: str, alive: Alive) -> Registration:
        """Hear of tokens, first of those that are there already."""
        ...

    async def close(self) -> None: ...
