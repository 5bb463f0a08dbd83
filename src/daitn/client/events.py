"""Events of a control centre as read by a client."""

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
from daitn.tools import clock

__all__ = ["EVENT_TYPES", "NetworkEvent", "follow"]

EVENT_TYPES: Final[dict[str, Any]] = {
    "map": MapDelta,
    "site": SiteNews,
    "job": JobSummary,
    "deployment": DeploymentView,
}
"""Content type of each kind of event; plain data for others."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True)
class NetworkEvent:
    """Something happened."""

    kind: str
    """`map`, `site`, `job`, `deployment`, `retired`; `reset` means events before it are missing."""
    id: str
    data: Any
    """A `MapDelta`, `SiteNews`, `JobSummary` or `DeploymentView`, by the kind; else plain data."""
    at_s: float
    """When it happened, in seconds since the epoch; when it came, if the control centre does not
    say."""


async def follow(transport: Transport, after: str) -> AsyncIterator[NetworkEvent]:
    """Events after an id, as long as they are read: a broken connection is reopened, also after the
    control centre was away for long.

    Raises the `DaitnError` for which a control centre sends none, and `Unreachable` if none ever
    answers.
    """
    pause_s = _FIRST_PAUSE_S
    answered = False
    while True:
        try:
            async for fields in _read(transport, after):
                after, pause_s, answered = fields.get("id", after), _FIRST_PAUSE_S, True
                if "event" in fields:
                    kind = fields["event"]
                    data = msgspec.json.decode(fields["data"], type=EVENT_TYPES.get(kind, Any))
                    at_s = float(fields["at"]) if "at" in fields else clock.wall_s()
                    yield NetworkEvent(kind, after, data, at_s)
        except Unreachable:
            if not answered:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def _read(transport: Transport, after: str) -> AsyncIterator[dict[str, str]]:
    """The fields of each event, and of messages that only tell the reader's position."""
    fields: dict[str, str] = {}
    async for line in transport.lines("/events", **({"last-event-id": after} if after else {})):
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            yield fields
            fields = {}
