"""Watches the map of a control centre, and writes its changes into the event log."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final, NamedTuple

import msgspec

from daitn.oam.api.answers import MapView
from daitn.oam.api.asking import Center
from daitn.oam.api.events import EventLog
from daitn.oam.api.live_map import ROLE_NAMES, LiveMap

__all__ = ["EVERY_S", "UNREAD_EVERY_S", "EncodedMap", "MapWatcher"]

EVERY_S: Final = 1.0
"""Polling interval while anybody reads."""
UNREAD_EVERY_S: Final = 10.0
"""Additional interval while nobody does, so that the next reader has little to catch up."""
_LEVEL: Final = 5


class EncodedMap(NamedTuple):
    """A map as JSON."""

    event: str
    """Id of the last event included; empty if there is none yet."""
    text: bytes
    zipped: bytes
    """Likewise, compressed with gzip."""


class MapWatcher:
    """Keeps the map, and reports its changes."""

    def __init__(self, center: Center, log: EventLog) -> None:
        self._center = center
        self._log = log
        self._live = LiveMap()
        self._lock = asyncio.Lock()
        self._followed = False
        """Whether the map shows anything yet."""
        self._map = EncodedMap("", b"", b"")

    async def look(self) -> None:
        """Report what has changed since the last look."""
        async with self._lock:
            await self._follow()

    async def map(self) -> EncodedMap:
        """The current map."""
        async with self._lock:
            await self._follow()
            known = self._map.event
            if not known or self._log.place(known) is None:
                self._map = await asyncio.to_thread(self._encoded, self._log.last)
            return self._map

    async def _follow(self) -> None:
        if self._live.worn:
            self._live, self._followed = LiveMap(), False
            self._log.forget()
        snapshot = self._center.snapshot()
        delta = await asyncio.to_thread(self._live.follow, snapshot)
        if delta is not None:
            self._map = EncodedMap("", b"", b"")
        if not self._followed:
            self._followed = True
            return
        if delta is not None:
            self._log.put("map", delta)

    def _encoded(self, event: str) -> EncodedMap:
        live = self._live
        text = msgspec.json.encode(
            MapView(
                event=event,
                version=live.version,
                at_s=live.at_s,
                role_names=ROLE_NAMES,
                sites=live.sites,
                links=live.links,
            )
        )
        return EncodedMap(event, text, gzip.compress(text, _LEVEL, mtime=0))
