"""The in-memory twin: many sites' links on one event loop, with delay, loss and cuts on demand."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace

from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.link import LEAST_COST_S
from daitn.tools.adjacency.protocol import MOST_MESSAGE_BYTES, LinkStats, Neighbours

__all__ = ["MemoryAdjacency", "MemoryLinks"]

_NEW = LinkStats(
    up=False,
    cost_s=LEAST_COST_S,
    downs=0,
    messages_in=0,
    messages_out=0,
    dropped_in=0,
    dropped_out=0,
    malformed=0,
)


@dataclass(eq=False, slots=True)
class _Wire:
    """A link from its creation until it is cut."""

    cost_s: float
    loss: float
    whole: bool = True
    due_s: dict[SiteId, float] = field(default_factory=dict)
    """When the last message sent arrives, per sender."""


class MemoryLinks:
    """All links. A cut loses messages in transit; both ends notice it `notice_s` later.

    `rng` decides what a lossy link loses.
    """

    def __init__(self, *, notice_s: float = 0.0, rng: random.Random | None = None) -> None:
        self._notice_s = notice_s
        self._rng = rng or random.Random(0)  # noqa: S311 - keeps no secret
        self._sites: dict[SiteId, MemoryAdjacency] = {}

    def open(self, site: SiteId, neighbours: Neighbours) -> MemoryAdjacency:
        """Open a site without links. Raises `InvalidInput` if it is already open."""
        if site in self._sites:
            raise InvalidInput(f"{site} is open already", field="site")
        opened = self._sites[site] = MemoryAdjacency(self, site, neighbours)
        return opened

    def join(self, a: SiteId, b: SiteId, *, cost_s: float = LEAST_COST_S, loss: float = 0) -> None:
        """Link two open sites, or relink them. Messages take `cost_s`; a share is lost."""
        self.cut(a, b)
        wire = _Wire(cost_s, loss)
        for end, other in ((self._sites[a], b), (self._sites[b], a)):
            asyncio.get_running_loop().call_soon(end.rise, other, wire)

    def cut(self, a: SiteId, b: SiteId) -> None:
        """Break the link between two sites, if there is one."""
        for site, other in ((a, b), (b, a)):
            end = self._sites.get(site)
            if end is not None and (wire := end.wires.get(other)) is not None:
                wire.whole = False
                asyncio.get_running_loop().call_later(self._notice_s, end.fall, other, wire)

    def carry(self, source: SiteId, target: SiteId, wire: _Wire, messages: list[bytes]) -> None:
        """Deliver messages to the other end, or lose them."""
        end = self._sites.get(target)
        kept = [one for one in messages if not wire.loss or self._rng.random() >= wire.loss]
        if end is None or not kept:
            return
        loop = asyncio.get_running_loop()
        # The loop does not preserve the order of timers due at the same instant.
        due_s = max(loop.time() + wire.cost_s, wire.due_s.get(source, 0.0) + 1e-6)
        wire.due_s[source] = due_s
        loop.call_at(due_s, end.arrive, source, wire, kept)

    def leave(self, site: SiteId) -> None:
        """Cut all links of a site, and free its name."""
        gone = self._sites.pop(site)
        for other in gone.wires:
            self.cut(other, site)
            gone.wires[other].whole = False


class MemoryAdjacency:
    """One site; see `Adjacency`. Created by `MemoryLinks.open`."""

    endpoints: tuple[str, ...] = ()

    def __init__(self, links: MemoryLinks, site: SiteId, neighbours: Neighbours) -> None:
        self.site = site
        self.wires: dict[SiteId, _Wire] = {}
        """Links that this site considers up."""
        self._links = links
        self._neighbours = neighbours
        self._waiting: dict[SiteId, list[bytes]] = {}
        self._stats: dict[SiteId, LinkStats] = {}
        self._closed = False

    def send(self, neighbour: SiteId, message: bytes) -> bool:
        if self._closed or neighbour not in self.wires:
            return False
        if len(message) > MOST_MESSAGE_BYTES:
            raise InvalidInput("the message is too large for a link", field="message")
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.setdefault(neighbour, []).append(message)
        return True

    def stats(self) -> dict[SiteId, LinkStats]:
        return dict(self._stats)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._links.leave(self.site)

    def rise(self, neighbour: SiteId, wire: _Wire) -> None:
        """The link to a neighbour comes up; an existing one falls first."""
        if self._closed or not wire.whole:
            return
        if neighbour in self.wires:
            self.fall(neighbour, self.wires[neighbour])
        self.wires[neighbour] = wire
        self._note(neighbour, up=True, cost_s=wire.cost_s)
        self._neighbours.up(neighbour, wire.cost_s)

    def fall(self, neighbour: SiteId, wire: _Wire) -> None:
        """This end notices that the link is gone."""
        if self.wires.get(neighbour) is wire and not self._closed:
            del self.wires[neighbour]
            self._note(neighbour, up=False, downs=1)
            self._neighbours.down(neighbour)

    def arrive(self, neighbour: SiteId, wire: _Wire, messages: list[bytes]) -> None:
        """Messages arrived over the link."""
        if wire.whole and self.wires.get(neighbour) is wire and not self._closed:
            self._note(neighbour, messages_in=len(messages))
            self._neighbours.frames(neighbour, messages)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for neighbour, messages in waiting.items():
            wire = self.wires.get(neighbour)
            if wire is None:
                self._note(neighbour, dropped_out=len(messages))
            else:
                self._note(neighbour, messages_out=len(messages))
                self._links.carry(self.site, neighbour, wire, messages)

    def _note(
        self,
        neighbour: SiteId,
        *,
        up: bool | None = None,
        cost_s: float | None = None,
        **more: int,
    ) -> None:
        known = self._stats.get(neighbour, _NEW)
        self._stats[neighbour] = replace(
            known,
            up=known.up if up is None else up,
            cost_s=known.cost_s if cost_s is None else cost_s,
            **{name: getattr(known, name) + count for name, count in more.items()},
        )
