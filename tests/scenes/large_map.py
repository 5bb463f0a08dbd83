"""The dashboard's map over a network of any size: the control centre's own map, events and
files, and sites that are only told of."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from daitn.oam.api.answers import ApiRole, MapView, SessionView
from daitn.oam.api.asking import SignedIn
from daitn.oam.api.events import EventLog, Readers
from daitn.oam.api.live_map import ROLE_NAMES, LiveMap
from daitn.oam.static import Dashboard
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.tools.http import HttpServer, Reply, Request, Response
from daitn.topology.state import DrrtState

__all__ = ["LargeMap", "large_map"]

_ROLES = ((Role.DATA, Role.COMPUTE), (Role.VERIFIER,), (Role.GATEWAY,), (Role.FACILITY,))
_JURISDICTIONS = ("US", "DE", "FR", "JP", "BR", "IN", "CA", "KE")
_MEASURER = SiteId("site-0")
_OPERATOR = SignedIn(member=None, role=ApiRole.OPERATOR)


class LargeMap:
    """A network that changes as it is told to."""

    def __init__(self, sites: int, links_each: int) -> None:
        self._state = DrrtState()
        self._map = LiveMap()
        self._random = random.Random(sites)
        self._clock = itertools.count(1000)
        self._loop = asyncio.new_event_loop()
        self._dashboard = Dashboard()
        self.joining_meanwhile: tuple[int, ...] = ()
        """Numbers of sites that join once each map is on its way, before it arrives."""
        self._server = HttpServer("127.0.0.1:0", "listen", self._answer)
        at_s = float(next(self._clock))
        for number in range(sites):
            self._join(number, at_s)
        for number in range(sites):
            for other in self._random.sample(range(sites), links_each):
                if other != number:
                    self._measure(number, other, at_s)
        self._map.follow(self._state.snapshot(at_s))

    @property
    def url(self) -> str:
        return self._server.endpoint

    def change(self, *, loads: int = 0, joins: tuple[int, ...] = ()) -> None:
        """Some sites' loads change, and sites of these numbers join."""
        self._do(self._change(loads, joins))

    def load(self, site: str) -> float:
        """What the map has of a site."""
        sites = self._map.sites
        return sites.load[sites.name.index(site)]

    async def _change(self, loads: int, joins: tuple[int, ...]) -> None:
        at_s = float(next(self._clock))
        for number in joins:
            self._join(number, at_s)
        known = len(self._state.snapshot(at_s).sites)
        for number in self._random.sample(range(known), loads):
            self._load(number, at_s)
        delta = self._map.follow(self._state.snapshot(at_s))
        if delta is not None:
            self._log.put("map", delta)

    def _join(self, number: int, at_s: float) -> None:
        described = NodeDescriptor(
            site=SiteId(f"site-{number}"),
            owner=OwnerId(f"owner-{number % 50}"),
            roles=_ROLES[number % len(_ROLES)],
            jurisdiction=_JURISDICTIONS[number * number % len(_JURISDICTIONS)],
            public_key="k",
            started_at_s=1.0,
            version=1,
            software="test",
        )
        self._state.absorb(described, at_s)
        self._load(number, at_s)

    def _load(self, number: int, at_s: float) -> None:
        load = LoadReading(
            site=SiteId(f"site-{number}"),
            queue=Reading(self._random.randrange(3), at_s, _MEASURER),
            cpu_share=Reading(self._random.random(), at_s, _MEASURER),
            disk_free_bytes=Reading(1e9, at_s, _MEASURER),
        )
        self._state.absorb(load, at_s)

    def _measure(self, number: int, other: int, at_s: float) -> None:
        reading = LinkReading(
            source=SiteId(f"site-{number}"),
            target=SiteId(f"site-{other}"),
            rtt_s=Reading(0.001 + 0.1 * self._random.random(), at_s, _MEASURER),
        )
        self._state.absorb(reading, at_s)

    async def _answer(self, request: Request) -> Reply:
        match request.path:
            case "/api/v1/session":
                return _json(SessionView(you=None, ways=()))
            case "/api/v1/map":
                live_map = self._map
                view = MapView(
                    event=self._log.last,
                    version=live_map.version,
                    at_s=live_map.at_s,
                    role_names=ROLE_NAMES,
                    sites=live_map.sites,
                    links=live_map.links,
                )
                answer = _json(view)
                joining, self.joining_meanwhile = self.joining_meanwhile, ()
                await self._change(0, joining)
                return answer
            case "/api/v1/events":
                return await self._readers.serve(
                    request, _OPERATOR, request.headers.get("last-event-id")
                )
        return self._dashboard.answer(request)

    def run(self) -> None:
        """Serve until `stop`, on this thread."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> None:
        """Return when it listens. It runs on another thread."""
        self._do(self._start())

    async def _start(self) -> None:
        self._log = EventLog()
        self._readers = Readers(self._log, lambda by: True)
        await self._server.start()

    def stop(self) -> None:
        """Stop serving, and end `run`."""
        self._do(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), 200, {"content-type": "application/json"})


@contextmanager
def large_map(sites: int, links_each: int) -> Iterator[LargeMap]:
    """A network of `sites` sites, served."""
    made = LargeMap(sites, links_each)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    made.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)
