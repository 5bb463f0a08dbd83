"""Events of a control centre as a client reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from daitn.client.transport import Transport
from daitn.oam.api.answers import MapDelta, SiteNews
from daitn.objects.errors import Unreachable
from daitn.objects.jobs import JobSummary
from daitn.objects.placement import DeploymentView

__all__ = ["EVENT_TYPES", "NetworkEvent", "follow"]

EVENT_TYPES: Final[dict[str, Any]] = {
    "map": MapDelta,
    "site": SiteNews,
    "job": JobSummary,
    "deployment": DeploymentView,
}
"""What an event of a kind carries; of others it is plain data."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True)
class NetworkEvent:
    """Something happened."""

    kind: str
    """`map`, `site`, `job`, `deployment`, `retired`; `reset`: events are missing before it."""
    id: str
    data: Any
    """A `MapDelta`, `SiteNews`, `JobSummary` or `DeploymentView`, by the kind; else plain data."""


async def follow(transport: Transport, after: str) -> AsyncIterator[NetworkEvent]:
    """Events after an id, for as long as they are read: a connection that breaks is made anew.

    Raises the `DaitnError` for which a control centre sends none.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            async for said in _read(transport, after):
                after, pause_s = said.get("id", after), _FIRST_PAUSE_S
                if "event" in said:
                    kind = said["event"]
                    data = msgspec.json.decode(said["data"], type=EVENT_TYPES.get(kind, Any))
                    yield NetworkEvent(kind, after, data)
        except Unreachable:
            pass
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def _read(transport: Transport, after: str) -> AsyncIterator[dict[str, str]]:
    """The fields of each event, and of what only says how far the reader is."""
    said: dict[str, str] = {}
    async for line in transport.lines("/events", **({"last-event-id": after} if after else {})):
        if line:
            name, _, value = line.partition(":")
            said[name] = value.removeprefix(" ")
        else:
            yield said
            said = {}
