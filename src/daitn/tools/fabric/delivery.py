"""Delivery shared by all fabrics: pass arrivals to their owner in order, and answer requests."""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from daitn.objects.errors import DaitnError, Unreachable, Unserved
from daitn.tools.fabric.protocol import Handler

__all__ = [
    "PUBLICATIONS_BOUND",
    "PUBLICATIONS_BYTES",
    "Mailbox",
    "answer",
    "call_on",
    "closed",
    "publication_size",
    "reported",
    "silent",
    "unserved",
]

Item = TypeVar("Item")

PUBLICATIONS_BOUND = 4096
"""Publications that may wait for one subscriber: those of 200 sites over a hundred seconds, at one
message per five seconds each. A slower subscriber loses the oldest."""
PUBLICATIONS_BYTES = 64 << 20
"""Their total size: four adverts of the largest size."""

_LOG = logging.getLogger(__name__)


class Mailbox(Generic[Item]):
    """Items from any thread, handled one at a time, in order, on the loop that made the mailbox.

    With a `bound` the oldest items are dropped when a slow owner lets more than that many pile up,
    or more than `most_bytes`, where `size` gives each item's bytes: waiting instead would stall the
    thread that reads the network for everybody. The newest item is always kept, whatever its size.
    """

    def __init__(
        self,
        name: str,
        take: Callable[[Item], Awaitable[None]],
        *,
        bound: int | None,
        most_bytes: int = PUBLICATIONS_BYTES,
        size: Callable[[Item], int] = lambda item: 0,
    ) -> None:
        self._name = name
        self._take = take
        self._bound, self._most_bytes = bound, most_bytes
        self._size = size
        self._items: collections.deque[Item] = collections.deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._awake = False
        self._dropped = 0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._worker = self._loop.create_task(self._run(), name=f"mailbox {name}")

    def put(self, item: Item) -> None:
        """Add an item. Never blocks; thread-safe, even after the loop has ended."""
        with self._lock:
            self._items.append(item)
            self._bytes += self._size(item)
            while self._bound is not None and self._is_full():
                self._pop()
                self._dropped += 1
            sleeping, self._awake = not self._awake, True
        if sleeping:
            call_on(self._loop, self._arrived.set)

    async def close(self) -> None:
        """Stop handling; drops waiting items, and cancels the one being handled."""
        self._closed = True
        if asyncio.current_task() is self._worker:
            return
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)

    async def _run(self) -> None:
        while not self._closed:
            await self._arrived.wait()
            item = self._next()
            if item is None:
                continue
            try:
                await self._take(item[0])
            except Exception:
                _LOG.exception("%s: handling failed", self._name)
            # A flood that never suspends would keep everything else off the loop.
            await asyncio.sleep(0)

    def _next(self) -> tuple[Item] | None:
        """The oldest item; None if there is none, and the mailbox is then asleep."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            item = (self._pop(),) if self._items else None
            if item is None:
                self._awake = False
                self._arrived.clear()
        if dropped:
            _LOG.warning("%s: too slow, dropped the %d oldest messages", self._name, dropped)
        return item

    def _is_full(self) -> bool:
        assert self._bound is not None
        many = len(self._items) > self._bound
        return many or (self._bytes > self._most_bytes and len(self._items) > 1)

    def _pop(self) -> Item:
        item = self._items.popleft()
        self._bytes -= self._size(item)
        return item


def publication_size(item: tuple[str, bytes]) -> int:
    """Bytes that a waiting publication occupies."""
    key, payload = item
    return len(key) + len(payload)


def call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Run `call` on a loop from another thread; does nothing if the loop has ended."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def answer(handler: Handler, key: str, payload: bytes) -> bytes:
    """Let a handler answer a request; see `reported`."""
    with reported(key):
        return await handler(key, payload)


@contextmanager
def reported(key: str) -> Iterator[None]:
    """Turns any failure of the server of `key` into a `DaitnError` that may be sent.

    An unexpected error stays in this process's log; the requester learns only where it happened.
    """
    try:
        yield
    except Unserved as error:
        # About the server's own request: its requester did reach the server.
        raise Unreachable(error.problem, field=error.field, fix=error.fix) from None
    except DaitnError:
        raise
    except Exception:
        _LOG.exception("the handler of %s failed", key)
        raise DaitnError(
            f"internal error at {key}", fix="look at the log of the process that serves it"
        ) from None


def unserved(key: str) -> Unserved:
    """The error when nobody serves a key."""
    return Unserved(
        f"nobody serves {key}",
        fix="check that the process that serves it is running and connected, and that you are "
        "still a member: members that are revoked, or whose key was replaced, are cut off",
    )


def silent(key: str, timeout_s: float) -> Unreachable:
    """The error when a server may exist but did not answer in time."""
    return Unreachable(
        f"no answer from {key} within {timeout_s:g} s",
        fix="check the network path and the load of the process that serves it",
    )


def closed() -> Unreachable:
    """The error when this end was closed."""
    return Unreachable(
        "this session of the fabric is closed", fix="open a new one before using it again"
    )
