"""Watches a control centre, and puts what happens there into the event log."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final, NamedTuple

import msgspec

from daitn.oam.api.answers import MapView
from daitn.oam.api.asking import Center
from daitn.oam.api.events import EventLog
from daitn.oam.api.picture import ROLE_NAMES, Picture
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobSummary, JobView
from daitn.objects.placement import DeploymentList, DeploymentView
from daitn.objects.requests import JobQuery
from daitn.objects.wire import decode, encode

__all__ = ["EVERY_S", "EncodedMap", "News"]

EVERY_S: Final = 1.0
"""How often it looks, while anybody reads."""
_LEVEL: Final = 5


class EncodedMap(NamedTuple):
    """A map as JSON."""

    event: str
    """Id of the last event that is in it; empty: there is none yet."""
    text: bytes
    zipped: bytes
    """The same, compressed with gzip."""


class News:
    """Keeps the picture of the map, and tells what changes."""

    def __init__(self, center: Center, log: EventLog) -> None:
        self._center = center
        self._log = log
        self._picture = Picture()
        self._deployed: dict[str, DeploymentView] | None = None
        self._lock = asyncio.Lock()
        self._followed = False
        """Whether the picture shows anything yet."""
        self._map = EncodedMap("", b"", b"")

    def job(self, shown: JobView) -> None:
        """Something happened to a job."""
        self._log.put("job", JobSummary.of(shown), owner=shown.owner)

    async def look(self) -> None:
        """Tell what has changed since the last look."""
        async with self._lock:
            await self._follow()
        await self._look_at_deployments()

    async def map(self) -> EncodedMap:
        """The map now."""
        async with self._lock:
            await self._follow()
            known = self._map.event
            if not known or self._log.place(known) is None:
                self._map = await asyncio.to_thread(self._encoded, self._log.last)
            return self._map

    async def _follow(self) -> None:
        if self._picture.worn:
            self._picture, self._followed = Picture(), False
            self._log.forget()
        snapshot = self._center.snapshot()
        delta, news = await asyncio.to_thread(self._picture.follow, snapshot)
        if delta is not None:
            self._map = EncodedMap("", b"", b"")
        if not self._followed:
            self._followed = True
            return
        for one in news:
            self._log.put("site", one)
        if delta is not None:
            self._log.put("map", delta)

    def _encoded(self, event: str) -> EncodedMap:
        picture = self._picture
        text = msgspec.json.encode(
            MapView(
                event=event,
                version=picture.version,
                at_s=picture.at_s,
                role_names=ROLE_NAMES,
                sites=picture.sites,
                links=picture.links,
            )
        )
        return EncodedMap(event, text, gzip.compress(text, _LEVEL, mtime=0))

    async def _look_at_deployments(self) -> None:
        answer = await self._center.answer("deployments", encode(JobQuery(job=JobId(""))))
        found = {one.name: one for one in decode(answer, DeploymentList).deployments}
        before, self._deployed = self._deployed, found
        if before is None:
            return
        for name, one in found.items():
            if before.get(name) != one:
                self._log.put("deployment", one)
        for name in before.keys() - found.keys():
            self._log.put("retired", {"name": name})
