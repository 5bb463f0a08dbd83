"""The fabric's in-memory twin: many sessions on one event loop, no sockets, faults on demand.

A cut link behaves as it does once both ends have noticed: what the other side serves and announces
is gone, publications do not cross, and answers in transit are lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from daitn.objects.errors import DaitnError, ErrorReport, InvalidInput
from daitn.tools.fabric.delivery import (
    PUBLICATIONS_BOUND,
    Mailbox,
    answer,
    closed,
    publication_size,
    silent,
    unserved,
)
from daitn.tools.fabric.patterns import checked_key, checked_pattern, covers
from daitn.tools.fabric.protocol import Accepts, Alive, Give, Handler, Message, Registration

__all__ = ["MemoryFabric", "MemoryNetwork"]

T = TypeVar("T")


class MemoryNetwork:
    """Connects in-memory sessions."""

    def __init__(self) -> None:
        self._sessions: dict[str, MemoryFabric] = {}
        self._holders: dict[str, list[MemoryFabric]] = {}
        """Sessions that show a token, per key."""
        self._cuts: set[frozenset[str]] = set()
        self._delays_s: dict[frozenset[str], float] = {}
        self._last_due_s: dict[tuple[str, str], float] = {}

    def open(self, name: str) -> MemoryFabric:
        """Open a session with a name that no open session has. Raises `InvalidInput` otherwise."""
        if name in self._sessions:
            raise InvalidInput(f"a session {name!r} is open already", field="name")
        session = self._sessions[name] = MemoryFabric(self, name)
        return session

    def cut(self, a: str, b: str) -> None:
        """Cut the link between two sessions."""
        self._cuts.add(frozenset((a, b)))
        self._refresh(self._tokens_of(a, b))

    def mend(self, a: str, b: str) -> None:
        """Restore the link between two sessions."""
        self._cuts.discard(frozenset((a, b)))
        self._refresh(self._tokens_of(a, b))

    def delay(self, a: str, b: str, one_way_s: float) -> None:
        """Let publications, requests and answers between two sessions take `one_way_s`."""
        self._delays_s[frozenset((a, b))] = one_way_s

    async def kill(self, name: str) -> None:
        """End a session as if its process had died, and free its name."""
        await self._sessions[name].close()

    def _tokens_of(self, *names: str) -> list[str]:
        open_ = [self._sessions[name] for name in names if name in self._sessions]
        return [token.key for session in open_ for token in session.tokens]

    def _linked(self, a: MemoryFabric, b: MemoryFabric) -> bool:
        alive = self._sessions.get(a.name) is a and self._sessions.get(b.name) is b
        return alive and frozenset((a.name, b.name)) not in self._cuts

    def _carry(
        self, source: MemoryFabric, target: MemoryFabric, arrive: Callable[[], object]
    ) -> None:
        """Deliver over a link, in order, or lose it if the link is cut."""

        def land() -> None:
            if self._linked(source, target):
                arrive()

        delay_s = self._delays_s.get(frozenset((source.name, target.name)), 0.0)
        if not delay_s:
            land()
            return
        loop = asyncio.get_running_loop()
        way = (source.name, target.name)
        # The loop does not preserve the order of timers due at the same instant.
        due_s = max(loop.time() + delay_s, self._last_due_s.get(way, 0.0) + 1e-6)
        self._last_due_s[way] = due_s
        loop.call_at(due_s, land)

    def _refresh(self, keys: Iterable[str]) -> None:
        """Tell every watch which of these tokens appeared or vanished since its last call."""
        for key in sorted(set(keys)):
            for session in self._sessions.values():
                for watch in session.watches:
                    watch.see(key, self._shown(key, session))

    def _shown(self, key: str, watcher: MemoryFabric) -> bool:
        return any(self._linked(watcher, holder) for holder in self._holders.get(key, ()))

    def _show(self, session: MemoryFabric, key: str) -> None:
        self._holders.setdefault(key, []).append(session)
        self._refresh([key])

    def _hide(self, session: MemoryFabric, key: str) -> None:
        self._holders[key].remove(session)
        if not self._holders[key]:
            del self._holders[key]
        self._refresh([key])

    def _leave(self, session: MemoryFabric) -> None:
        del self._sessions[session.name]
        self._refresh(token.key for token in session.tokens)


@dataclass(eq=False)
class _Subscription:
    pattern: str
    mailbox: Mailbox[tuple[str, bytes]]
    owner: list[_Subscription]

    async def close(self) -> None:
        await _end(self, self.owner, self.mailbox)


@dataclass(eq=False)
class _Served:
    pattern: str
    handler: Handler
    owner: list[_Served]

    async def close(self) -> None:
        if self in self.owner:
            self.owner.remove(self)


@dataclass(eq=False)
class _Token:
    key: str
    owner: list[_Token]
    hide: Callable[[str], None]

    async def close(self) -> None:
        if self in self.owner:
            self.owner.remove(self)
            self.hide(self.key)


@dataclass(eq=False)
class _Watch:
    pattern: str
    mailbox: Mailbox[tuple[str, bool]]
    owner: list[_Watch]
    seen: set[str] = field(default_factory=set)

    def see(self, key: str, shown: bool) -> None:
        if shown != (key in self.seen) and covers(self.pattern, key):
            (self.seen.add if shown else self.seen.discard)(key)
            self.mailbox.put((key, shown))

    async def close(self) -> None:
        await _end(self, self.owner, self.mailbox)


async def _end(taker: T, owner: list[T], mailbox: Mailbox[Any]) -> None:
    if taker in owner:
        owner.remove(taker)
    await mailbox.close()


_Answer = bytes | ErrorReport | None
"""`None` means the server of the key left."""


class MemoryFabric:
    """One session of a `MemoryNetwork`; see `Fabric`."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.name = name
        self.subscriptions: list[_Subscription] = []
        self.served: list[_Served] = []
        self.tokens: list[_Token] = []
        self.watches: list[_Watch] = []
        self._network = network
        self._answering: set[asyncio.Task[None]] = set()
        self._asked: set[asyncio.Future[_Answer]] = set()
        self._closed = False

    async def publish(self, key: str, payload: bytes) -> None:
        await asyncio.sleep(0)  # Others get their turn meanwhile, as with Zenoh.
        self._check_open()
        checked_key(key)
        for target in tuple(self._network._sessions.values()):
            for subscription in target.subscriptions:
                if covers(subscription.pattern, key) and self._network._linked(self, target):
                    arrive = partial(subscription.mailbox.put, (key, payload))
                    self._network._carry(self, target, arrive)

    async def subscribe(self, pattern: str, message: Message) -> Registration:
        self._check_open()

        async def take(item: tuple[str, bytes]) -> None:
            await message(*item)

        checked_pattern(pattern)
        mailbox = Mailbox(pattern, take, bound=PUBLICATIONS_BOUND, size=publication_size)
        subscription = _Subscription(pattern, mailbox, self.subscriptions)
        self.subscriptions.append(subscription)
        return subscription

    async def request(
        self, key: str, payload: bytes, *, timeout_s: float, accepts: Accepts | None = None
    ) -> bytes:
        self._check_open()
        checked_key(key)
        asked: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._asked.add(asked)
        try:
            self._ask(key, payload, asked, accepts)
            async with asyncio.timeout(timeout_s):
                given = await asked
        except TimeoutError:
            raise silent(key, timeout_s) from None
        finally:
            self._asked.discard(asked)
        if given is None:
            raise unserved(key)
        if isinstance(given, ErrorReport):
            raise given.error()
        return given

    async def request_bulk(
        self, key: str, payload: bytes, *, timeout_s: float, take: Callable[[bytes], T]
    ) -> T:
        given = await self.request(key, payload, timeout_s=timeout_s)
        taking = asyncio.ensure_future(asyncio.to_thread(take, given))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.gather(taking, return_exceptions=True)
            raise

    async def serve_bulk(self, key: str, give: Give) -> Registration:
        async def handler(key: str, payload: bytes) -> bytes:
            return await asyncio.to_thread(give, key, payload)

        return await self.serve(key, handler)

    async def serve(self, key: str, handler: Handler) -> Registration:
        self._check_open()
        served = _Served(checked_pattern(key), handler, self.served)
        self.served.append(served)
        return served

    async def announce(self, key: str) -> Registration:
        self._check_open()
        token = _Token(checked_key(key), self.tokens, partial(self._network._hide, self))
        self.tokens.append(token)
        self._network._show(self, key)
        return token

    async def watch(self, pattern: str, alive: Alive) -> Registration:
        self._check_open()

        async def take(item: tuple[str, bool]) -> None:
            await alive(*item)

        mailbox = Mailbox(checked_pattern(pattern), take, bound=None)
        watch = _Watch(pattern, mailbox, self.watches)
        self.watches.append(watch)
        for key in sorted(self._network._holders):
            watch.see(key, self._network._shown(key, self))
        return watch

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._network._leave(self)
        for token in tuple(self.tokens):
            await token.close()
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(closed())
        current = asyncio.current_task()
        answering = [task for task in self._answering if task is not current]
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        for subscription in tuple(self.subscriptions):
            await subscription.close()
        for watch in tuple(self.watches):
            await watch.close()

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    def _ask(
        self, key: str, payload: bytes, asked: asyncio.Future[_Answer], accepts: Accepts | None
    ) -> None:
        found = [
            (target, served)
            for target in self._network._sessions.values()
            for served in target.served
            if covers(served.pattern, key) and self._network._linked(self, target)
        ]
        if accepts is None:
            found = found[:1]
        silent = len(found)

        def settle(given: _Answer) -> None:
            nonlocal silent
            silent -= 1
            if asked.done():
                return
            if accepts is None or (isinstance(given, bytes) and accepts(given)):
                asked.set_result(given)
            elif not silent:
                asked.set_result(None)

        for target, served in found:
            arrive = partial(target._accept, self, served, key, payload, settle)
            self._network._carry(self, target, arrive)
        if not found:
            asked.set_result(None)

    def _accept(
        self,
        asker: MemoryFabric,
        served: _Served,
        key: str,
        payload: bytes,
        settle: Callable[[_Answer], None],
    ) -> None:
        async def run() -> None:
            try:
                given: _Answer = await answer(served.handler, key, payload)
            except DaitnError as error:
                given = ErrorReport.of(error)
            self._network._carry(self, asker, partial(settle, given))

        def ended(task: asyncio.Task[None]) -> None:
            self._answering.discard(task)
            if task.cancelled():
                settle(None)

        task = asyncio.get_running_loop().create_task(run(), name=f"answer {key}")
        self._answering.add(task)
        task.add_done_callback(ended)
