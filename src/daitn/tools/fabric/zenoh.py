"""The fabric over Zenoh.

Zenoh calls back on its own threads, and its sends may block while a link is congested. So every
call into Zenoh that may send runs on a small pool of threads, and everything that arrives crosses
to the event loop through `Mailbox` or `call_on`; the loop itself never waits. Measured between two
processes on loopback, a pool costs 0.06 ms to 0.11 ms of a round trip.

Sites are peers that know the control centre's router; gossip introduces them to each other and they
connect directly, so that models do not pass through the centre and sites still reach each other
while it is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

import zenoh

from daitn.objects.errors import DaitnError, Unreachable
from daitn.tools.fabric import replies
from daitn.tools.fabric.bulk import Taken
from daitn.tools.fabric.delivery import (
    PUBLICATIONS_BOUND,
    Mailbox,
    answer,
    call_on,
    closed,
    publication_size,
    reported,
    silent,
    unserved,
)
from daitn.tools.fabric.links import LinkGuard
from daitn.tools.fabric.metrics import FabricMetrics
from daitn.tools.fabric.opening import OpenedSession, open_session, plain
from daitn.tools.fabric.patterns import checked_key, checked_pattern
from daitn.tools.fabric.protocol import Accepts, Alive, Give, Handler, Message, Registration
from daitn.tools.fabric.settings import FabricSettings

__all__ = ["ZenohFabric", "open_zenoh"]

T = TypeVar("T")
_AnyMailbox = Mailbox[tuple[str, bytes]] | Mailbox[tuple[str, bool]]

_LOG = logging.getLogger(__name__)

_SENDERS = 32
"""Threads that may wait on congested links concurrently; started on demand."""
_GIVERS = 2
"""Threads that make bulk answers; others send them. Few threads reuse the same memory: measured on
two cores, holder and receiver together spend 2.5 to 2.9 ms of them on a chunk with 2 threads, and
2.9 to 3.1 ms with 32, where each chunk's memory is new and the system has to supply its pages."""
_TAKERS = 2
"""Threads that process bulk answers."""
_BACKSTOP_S = 5.0
"""How long after our own timeout Zenoh drops a query, in case its cancellation is lost."""


async def open_zenoh(
    settings: FabricSettings, *, connect_timeout_s: float | None = None
) -> ZenohFabric:
    """Join the fabric.

    With `connect_timeout_s`, wait until one of `settings.connect` answered and raise `Unreachable`
    when none did. Without it, routers and peers connect in the background, whenever the other end
    starts; a client cannot work unconnected and waits 10 s. Raises `InvalidInput` when an endpoint
    cannot be listened on.
    """
    return ZenohFabric(await open_session(settings, connect_timeout_s))


class _Undeclarable(Protocol):
    def undeclare(self) -> None: ...


class ZenohFabric:
    """One Zenoh session; see `Fabric`. Created by `open_zenoh`."""

    def __init__(self, opened: OpenedSession) -> None:
        self.endpoints = opened.endpoints
        """The endpoints it listens on, with the actual ports in place of 0."""
        self._opened = opened
        self._session = opened.session
        self._loop = asyncio.get_running_loop()
        self._senders = ThreadPoolExecutor(_SENDERS, thread_name_prefix="fabric")
        self._givers = ThreadPoolExecutor(_GIVERS, thread_name_prefix="give")
        self._repliers = ThreadPoolExecutor(_SENDERS, thread_name_prefix="reply")
        self._takers = ThreadPoolExecutor(_TAKERS, thread_name_prefix="take")
        self._mailboxes: set[_AnyMailbox] = set()
        # Zenoh undeclares dropped objects; a registration lasts until it is closed.
        self._registrations: set[_Registration] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._asked: set[asyncio.Future[zenoh.Reply | None]] = set()
        self._taken: set[Taken[Any]] = set()
        self._closed = False
        self.metrics = FabricMetrics()

    def guarded(
        self, listed: Callable[[str], bool], *, own: str = "", brief: bool = False
    ) -> LinkGuard:
        """See `LinkGuard`; close it before the fabric."""
        return LinkGuard(self._opened, listed, own=own, brief=brief)

    async def publish(self, key: str, payload: bytes) -> None:
        self.metrics.count("published", payload)
        put = partial(
            self._session.put,
            checked_key(key),
            payload,
            congestion_control=zenoh.CongestionControl.BLOCK,
            express=True,
        )
        await self._send(put)

    async def subscribe(self, pattern: str, message: Message) -> Registration:
        checked_pattern(pattern)
        self._check_open()

        async def take(item: tuple[str, bytes]) -> None:
            self.metrics.count("received", item[1])
            await message(*item)

        mailbox = Mailbox(pattern, take, bound=PUBLICATIONS_BOUND, size=publication_size)

        def received(sample: zenoh.Sample) -> None:
            mailbox.put((str(sample.key_expr), bytes(sample.payload)))

        declare = partial(self._session.declare_subscriber, pattern, _direct(received))
        return await self._declared(declare, mailbox)

    async def request(
        self, key: str, payload: bytes, *, timeout_s: float, accepts: Accepts | None = None
    ) -> bytes:
        checked_key(key)
        self._check_open()
        self.metrics.count("asked", payload)
        asked: asyncio.Future[zenoh.Reply | None] = self._loop.create_future()
        self._asked.add(asked)
        token = zenoh.CancellationToken()

        def settle(reply: zenoh.Reply | None) -> None:
            if not asked.done() and _counts(reply, accepts):
                asked.set_result(reply)

        def replied(reply: zenoh.Reply) -> None:
            call_on(self._loop, partial(settle, reply))

        def ended() -> None:
            call_on(self._loop, partial(settle, None))

        answered = _direct(replied, ended)
        priority = zenoh.Priority.DATA
        get = partial(
            self._get, key, payload, timeout_s, answered, token, priority, everybody=bool(accepts)
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(get)
                reply = await asked
        except TimeoutError:
            raise silent(key, timeout_s) from None
        finally:
            self._asked.discard(asked)
            if not asked.done() or asked.cancelled():
                # Cancelling waits for a running callback: not on the loop.
                self._spawn(token.cancel)
        return replies.read(reply, key, timeout_s)

    async def request_bulk(
        self, key: str, payload: bytes, *, timeout_s: float, take: Callable[[bytes], T]
    ) -> T:
        checked_key(key)
        self._check_open()
        self.metrics.count("asked_bulk", payload)
        taken = Taken(take)
        self._taken.add(taken)
        token = zenoh.CancellationToken()
        arrived = False

        def replied(reply: zenoh.Reply) -> None:
            nonlocal arrived
            arrived = True
            _hand(self._takers, partial(taken.take, partial(replies.read, reply, key, timeout_s)))

        def ended() -> None:
            if not arrived:
                taken.fail(unserved(key))

        def get() -> None:
            # An answer inherits the priority: commands overtake model chunks. Measured at 50 Mbit/s
            # with four 1 MiB answers in flight: an echo takes 0.31 s instead of 0.68 s; the rest is
            # the kernel's send buffer.
            low = zenoh.Priority.DATA_LOW
            try:
                self._get(key, payload, timeout_s, _direct(replied, ended), token, low)
            except zenoh.ZError as error:
                taken.fail(replies.failed(plain(error)))

        asking = self._senders.submit(get)
        try:
            async with asyncio.timeout(timeout_s):
                return await taken.outcome()
        except TimeoutError:
            raise silent(key, timeout_s) from None
        finally:
            self._taken.discard(taken)
            if not arrived and not asking.cancel():
                self._spawn(token.cancel)

    async def serve(self, key: str, handler: Handler) -> Registration:
        def asked(query: zenoh.Query) -> None:
            call_on(self._loop, partial(self._accept, handler, query))

        return await self._queryable(key, asked)

    async def serve_bulk(self, key: str, give: Give) -> Registration:
        def asked(query: zenoh.Query) -> None:
            _hand(self._givers, partial(self._give, give, query))

        return await self._queryable(key, asked)

    async def announce(self, key: str) -> Registration:
        checked_key(key)
        return await self._declared(partial(self._session.liveliness().declare_token, key))

    async def watch(self, pattern: str, alive: Alive) -> Registration:
        checked_pattern(pattern)
        self._check_open()

        async def take(item: tuple[str, bool]) -> None:
            await alive(*item)

        mailbox = Mailbox(pattern, take, bound=None)

        def changed(sample: zenoh.Sample) -> None:
            mailbox.put((str(sample.key_expr), sample.kind == zenoh.SampleKind.PUT))

        declare = partial(
            self._session.liveliness().declare_subscriber, pattern, _direct(changed), history=True
        )
        return await self._declared(declare, mailbox)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(closed())
        for taken in tuple(self._taken):
            taken.fail(closed())
        current = asyncio.current_task()
        answering = [task for task in self._answering if task is not current]
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        for mailbox in tuple(self._mailboxes):
            await mailbox.close()
        try:
            await asyncio.to_thread(self._session.close)
        except zenoh.ZError as error:
            _LOG.warning("a stalled peer kept the session from closing in order: %s", plain(error))
        if self._opened.presented is not None:
            self._opened.presented.close()
        for threads in (self._senders, self._givers, self._repliers, self._takers):
            threads.shutdown(wait=False, cancel_futures=True)

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    async def _send(self, call: Callable[[], T]) -> T:
        """Run a call that may block. Raises `Unreachable` when Zenoh fails."""
        self._check_open()
        try:
            return await self._loop.run_in_executor(self._senders, call)
        except zenoh.ZError as error:
            raise closed() if self._closed else replies.failed(plain(error)) from None

    def _spawn(self, call: Callable[[], object]) -> None:
        """Run a call that may block and whose outcome is not awaited."""
        if not self._closed:
            self._senders.submit(call)

    def _get(
        self,
        key: str,
        payload: bytes,
        timeout_s: float,
        answered: zenoh.handlers.Callback[Any],
        token: zenoh.CancellationToken,
        priority: zenoh.Priority,
        *,
        everybody: bool = False,
    ) -> None:
        """`everybody`: whether to ask all servers of the key, or only the nearest."""
        self._session.get(
            key,
            answered,
            payload=payload,
            timeout=timeout_s + _BACKSTOP_S,
            target=zenoh.QueryTarget.ALL if everybody else zenoh.QueryTarget.BEST_MATCHING,
            consolidation=zenoh.ConsolidationMode.NONE,
            congestion_control=zenoh.CongestionControl.BLOCK,
            priority=priority,
            express=True,
            cancellation_token=token,
        )

    def _accept(self, handler: Handler, query: zenoh.Query) -> None:
        if self._closed:
            return
        task = self._loop.create_task(self._answer(handler, query), name=f"answer {query.key_expr}")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, handler: Handler, query: zenoh.Query) -> None:
        def finish(reply: Callable[[], None]) -> None:
            with query:
                reply()

        key = str(query.key_expr)
        payload = b"" if query.payload is None else bytes(query.payload)
        self.metrics.count("answered", payload)
        try:
            given = await answer(handler, checked_key(key), payload)
            reply = replies.given(query, key, given)
        except DaitnError as error:
            reply = replies.refused(query, error)
        except asyncio.CancelledError:
            self._spawn(query.drop)
            raise
        try:
            await self._send(partial(finish, reply))
        except Unreachable as error:
            _LOG.warning("the answer of %s got lost: %s", key, error.problem)

    def _give(self, give: Give, query: zenoh.Query) -> None:
        key = str(query.key_expr)
        payload = b"" if query.payload is None else bytes(query.payload)
        try:
            with reported(key):
                data = zenoh.ZBytes(give(checked_key(key), payload))
            reply = replies.given(query, key, data)
        except DaitnError as error:
            reply = replies.refused(query, error)
        _hand(self._repliers, partial(self._reply, query, key, reply))

    def _reply(self, query: zenoh.Query, key: str, reply: Callable[[], None]) -> None:
        try:
            with query:
                reply()
        except zenoh.ZError as error:
            if not self._closed:
                _LOG.warning("the answer of %s got lost: %s", key, plain(error))

    async def _queryable(self, key: str, asked: Callable[[zenoh.Query], None]) -> Registration:
        checked_pattern(key)
        self._check_open()
        declare = partial(self._session.declare_queryable, key, _direct(asked), complete=True)
        return await self._declared(declare)

    async def _declared(
        self,
        declare: Callable[[], _Undeclarable],
        mailbox: _AnyMailbox | None = None,
    ) -> Registration:
        """Declare something; undeclares it if the caller is cancelled meanwhile."""
        declaring = asyncio.ensure_future(self._send(declare))
        if mailbox is not None:
            self._mailboxes.add(mailbox)
        try:
            registration = _Registration(self, await asyncio.shield(declaring), mailbox)
        except BaseException:
            declaring.add_done_callback(self._abandon)
            await self._forget(mailbox)
            raise
        self._registrations.add(registration)
        return registration

    def _abandon(self, declaring: asyncio.Future[_Undeclarable]) -> None:
        if not declaring.cancelled() and declaring.exception() is None:
            self._spawn(declaring.result().undeclare)

    async def _forget(self, mailbox: _AnyMailbox | None) -> None:
        if mailbox is not None:
            self._mailboxes.discard(mailbox)
            await mailbox.close()


class _Registration:
    def __init__(
        self, fabric: ZenohFabric, declared: _Undeclarable, mailbox: _AnyMailbox | None
    ) -> None:
        self._fabric = fabric
        self._declared: _Undeclarable | None = declared
        self._mailbox = mailbox

    async def close(self) -> None:
        declared, self._declared = self._declared, None
        if declared is None:
            return
        self._fabric._registrations.discard(self)
        if not self._fabric._closed:
            await self._fabric._send(declared.undeclare)
        await self._fabric._forget(self._mailbox)


def _hand(threads: ThreadPoolExecutor, call: Callable[[], None]) -> None:
    """Let a thread make a call; does nothing once the session is closed."""
    with contextlib.suppress(RuntimeError):
        threads.submit(call)


def _direct(
    call: Callable[[Any], None], drop: Callable[[], None] | None = None
) -> zenoh.handlers.Callback[Any]:
    """Call on Zenoh's own thread: our callbacks only pass things on; more threads cost time."""
    return zenoh.handlers.Callback(call, drop, indirect=False)


def _counts(reply: zenoh.Reply | None, accepts: Accepts | None) -> bool:
    """Whether a reply, or the end of all replies, ends the request."""
    if accepts is None or reply is None:
        return True
    return reply.ok is not None and accepts(bytes(reply.ok.payload))
