"""Links to neighbours over Zenoh.

A Zenoh peer without gossip sends only to peers it is connected to, and forwards nothing for others
(a router does): a publication takes the link to its neighbour or is not delivered. So a broken link
is visible here, and not routed around below.

Three signs tell that a link is down. Zenoh withdraws the neighbour's token when the connection
breaks: visible within milliseconds of a process's death or a reset. Silence of `dead_s`: a frozen
process, a pulled cable. An unknown nonce in a hello: the neighbour restarted, or lost the link
itself.

A separate thread sends hellos, so that a site with a busy event loop does not seem dead; one whose
loop is stuck for `_STUCK_S` does. Time in which this process itself did not run does not count as
others' silence.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial
from typing import Any, Final

import zenoh

from daitn.identity.links import LinkIdentity
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId, checked_name
from daitn.tools.adjacency.end import End
from daitn.tools.adjacency.protocol import MOST_MESSAGE_BYTES, LinkStats, Neighbours
from daitn.tools.adjacency.sending import FrameSender
from daitn.tools.adjacency.settings import AdjacencySettings
from daitn.tools.fabric.delivery import call_on
from daitn.tools.fabric.links import LinkGuard
from daitn.tools.fabric.opening import OpenedSession, open_session, plain
from daitn.tools.fabric.settings import FabricSettings

__all__ = ["ZenohAdjacency", "open_adjacency"]

_LOG = logging.getLogger(__name__)

_STUCK_S: Final = 1.0
_CHECK_S: Final = 1.0
"""How soon a link to a revoked neighbour goes down."""
_FORGET_S: Final = 10.0
"""How long a neighbour that is not configured is remembered after its last message."""
_MOST_STRANGERS: Final = 256
_MOST_ENDS: Final = 1024


async def open_adjacency(
    settings: AdjacencySettings, neighbours: Neighbours, identity: LinkIdentity | None = None
) -> ZenohAdjacency:
    """Listen, and connect to neighbours whenever they are reachable.

    With `identity` both ends of a link prove who they are; without, a neighbour is who it says.

    Raises `InvalidInput` if an endpoint or the scouting group is invalid, or an endpoint cannot be
    listened on.
    """
    connect = dict.fromkeys(one for many in settings.neighbours.values() for one in many)
    opened = await open_session(
        FabricSettings(
            listen=settings.listen,
            connect=tuple(connect),
            direct=True,
            tls=settings.tls,
            scout=settings.scout,
        ),
        None,
    )
    adjacency = ZenohAdjacency(opened, settings, neighbours, identity)
    try:
        await asyncio.to_thread(adjacency.declare)
    except BaseException:
        await adjacency.close()
        raise
    return adjacency


class ZenohAdjacency:
    """See `Adjacency`. Created by `open_adjacency`."""

    def __init__(
        self,
        opened: OpenedSession,
        settings: AdjacencySettings,
        neighbours: Neighbours,
        identity: LinkIdentity | None = None,
    ) -> None:
        self._identity = identity
        self._checked_s = time.monotonic()
        """When membership was last checked."""
        self.endpoints = opened.endpoints
        self._opened = opened
        self._session = opened.session
        self._settings = settings
        self._neighbours = neighbours
        self._loop = asyncio.get_running_loop()
        self._ends: dict[str, End] = {}
        self._declared: list[Any] = []
        self._closed = threading.Event()
        self._awake = False
        self._flushing: list[End] = []
        self._strangers: set[str] = set()
        """Ignored sites, each reported once."""
        for neighbour in settings.neighbours:
            self._meet(neighbour)
        self._ticked_s = time.monotonic()
        self._tick_handle = self._loop.call_later(settings.hello_s, self._tick)
        self._pulse_thread = threading.Thread(target=self._pulse, name="hellos", daemon=True)
        self._pulse_thread.start()
        self._guard: LinkGuard | None = None
        if settings.listed is not None:
            own = identity.key.public if identity is not None else ""
            self._guard = LinkGuard(opened, settings.listed, own=own)

    def declare(self) -> None:
        """Start to receive, and announce this site. Blocking."""
        site = self._settings.site
        received = zenoh.handlers.Callback(self._received, indirect=False)
        alive = zenoh.handlers.Callback(self._seen, indirect=False)
        self._declared = [
            self._session.declare_subscriber(f"daitn/adjacent/{site}/from/*", received),
            self._session.liveliness().declare_subscriber("daitn/adjacent/*", alive),
            self._session.liveliness().declare_token(f"daitn/adjacent/{site}"),
        ]

    def send(self, neighbour: SiteId, message: bytes) -> bool:
        end = self._ends.get(neighbour)
        if end is None or end.outbox is None:
            return False
        if len(message) > MOST_MESSAGE_BYTES:
            raise InvalidInput(
                f"a message of {len(message)} bytes is too large for a link",
                field="message",
                fix=f"send at most {MOST_MESSAGE_BYTES} bytes, or a digest of what to fetch",
            )
        end.outbox.put(message, len(message))
        if not end.outbox.pending:
            end.outbox.pending = True
            if not self._flushing:
                self._loop.call_soon(self._flush)
            self._flushing.append(end)
        return True

    def stats(self) -> dict[SiteId, LinkStats]:
        return {end.neighbour: end.stats() for end in self._ends.values()}

    async def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._tick_handle.cancel()
        if self._guard is not None:
            await self._guard.close()
        for end in self._ends.values():
            end.close()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """Blocking."""
        try:
            self._session.close()  # type: ignore[no-untyped-call]
        except zenoh.ZError as error:
            _LOG.warning("a stalled link kept the session from closing: %s", plain(error))
        if self._opened.presented is not None:
            self._opened.presented.close()
        self._pulse_thread.join()
        for end in self._ends.values():
            end.sender.join()

    def _meet(self, neighbour: SiteId) -> None:
        key = f"daitn/adjacent/{neighbour}/from/{self._settings.site}"
        if self._identity is None:
            sender, keys = FrameSender(self._session, key), None
        else:
            keys = self._identity.link_to(neighbour)
            sender = FrameSender(self._session, key, keys.seal)
        self._ends[neighbour] = End(neighbour, self._neighbours, sender, keys)

    def _flush(self) -> None:
        ends, self._flushing = self._flushing, []
        for end in ends:
            if end.outbox is not None:
                end.sender.wake(end.outbox)

    def _received(self, sample: zenoh.Sample) -> None:
        """Called on one of Zenoh's threads."""
        name = str(sample.key_expr).rpartition("/")[2]
        end = self._ends.get(name)
        if end is None:
            if self._settings.anybody or self._settings.scout:
                call_on(self._loop, partial(self._welcome, name))
            else:
                self._ignore(name)
            return
        end.arrive(bytes(sample.payload))
        if not self._awake:
            self._awake = True
            call_on(self._loop, self._work)

    def _seen(self, sample: zenoh.Sample) -> None:
        """Called on one of Zenoh's threads."""
        name = str(sample.key_expr).rpartition("/")[2]
        if sample.kind == zenoh.SampleKind.DELETE:
            call_on(self._loop, partial(self._vanished, name))
        elif self._settings.scout:  # One of two sites that found each other has to speak first.
            call_on(self._loop, partial(self._welcome, name))

    def _vanished(self, name: str) -> None:
        end = self._ends.get(name)
        if end is not None and not self._closed.is_set():
            end.lose("the connection broke")

    def _ignore(self, name: str) -> None:
        if name not in self._strangers and len(self._strangers) < _MOST_STRANGERS:
            self._strangers.add(name)
            _LOG.warning("%s is ignored: it is not a neighbour of this site", name)

    def _welcome(self, name: str) -> None:
        known = name in self._ends or name == self._settings.site
        if known or self._closed.is_set() or len(self._ends) >= _MOST_ENDS:
            return
        try:
            self._meet(SiteId(checked_name(name, "site")))
        except InvalidInput:
            self._ignore(name)

    def _work(self) -> None:
        self._awake = False
        if self._closed.is_set():
            return
        left = [end for end in tuple(self._ends.values()) if end.work()]
        if left and not self._awake:
            self._awake = True
            self._loop.call_soon(self._work)

    def _tick(self) -> None:
        # First, so that a link which fails here does not stop the monitoring of the others.
        self._tick_handle = self._loop.call_later(self._settings.hello_s, self._tick)
        now_s = time.monotonic()
        late_s = max(0.0, now_s - self._ticked_s - self._settings.hello_s)
        self._ticked_s = now_s
        checks = now_s >= self._checked_s + _CHECK_S
        if checks:
            self._checked_s = now_s
        for end in tuple(self._ends.values()):
            if checks:
                end.check_proof()
            end.heard_s += late_s
            silent_s = now_s - end.heard_s
            if silent_s > self._settings.dead_s:
                end.lose(f"silent for {silent_s:.3f} s")
            forgotten = silent_s > _FORGET_S and not end.link.up
            if forgotten and end.neighbour not in self._settings.neighbours:
                end.close()
                del self._ends[end.neighbour]

    def _pulse(self) -> None:
        """Runs on its own thread."""
        while not self._closed.wait(self._settings.hello_s):
            if time.monotonic() - self._ticked_s < _STUCK_S:
                for end in tuple(self._ends.values()):
                    try:
                        end.say_hello()
                    except Exception:
                        _LOG.exception("no hello to %s", end.neighbour)
