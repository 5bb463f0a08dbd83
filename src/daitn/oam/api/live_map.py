"""The map drawn by dashboards: all sites and links, and their changes.

Sites have numbers that stay, so that a change names one in a few bytes. Small changes of loads and
delays are left out: nobody sees them, and at ten thousand sites they would be most of it.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from immutables import Map

from daitn.oam.api.answers import Assigned, MapChanges, MapDelta, MapLink, MapSites
from daitn.objects.descriptors import Role
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.snapshot import Drrt, SiteState

__all__ = ["ROLE_NAMES", "LiveMap"]

ROLE_NAMES: Final = tuple(str(role) for role in Role)
_BITS: Final = {role: 1 << place for place, role in enumerate(Role)}
_MOST_GONE: Final = 1000
_LOAD_STEP: Final = 0.05
_LINK_STEP: Final = 0.2
"""Smallest differences shown: of a load, and of a link's figures in proportion."""


class LiveMap:
    """What was shown of a topology so far. For one thread at a time."""

    def __init__(self) -> None:
        self.sites = MapSites()
        self._number: dict[SiteId, int] = {}
        self._seen: dict[SiteId, SiteState] = {}
        self._links: dict[SiteId, dict[SiteId, MapLink]] = {}
        self._seen_links: Map[SiteId, Map[SiteId, LinkReading]] = Map()
        self.version = 0
        self.at_s = 0.0

    @property
    def links(self) -> tuple[MapLink, ...]:
        return tuple(link for targets in self._links.values() for link in targets.values())

    @property
    def worn(self) -> bool:
        """Whether most of its numbers belong to sites that are gone, so that a new map is
        due."""
        gone = len(self.sites.name) - len(self._number)
        return gone > max(_MOST_GONE, len(self._number))

    def follow(self, snapshot: Drrt) -> MapDelta | None:
        """Show a newer snapshot. Returns the changes, if any."""
        added, changed = MapSites(), MapChanges()
        seen = self._seen
        differing = [one for one in snapshot.sites.items() if seen.get(one[0]) is not one[1]]
        for site, state in sorted(differing, key=lambda one: one[0]):
            self._show(site, state, added, changed)
            seen[site] = state
        if len(self._seen) > len(snapshot.sites):
            for site in [site for site in self._seen if site not in snapshot.sites]:
                del self._seen[site]
                self._change(self._number.pop(site), changed, state=Assigned.GONE)
        links, cut = self._follow_links(snapshot)
        self.version, self.at_s = snapshot.version, snapshot.at_s
        if not (added.name or changed.site or links or cut):
            return None
        return MapDelta(
            version=snapshot.version,
            at_s=snapshot.at_s,
            added=added,
            changed=changed,
            links=tuple(links),
            cut=tuple(cut),
        )

    def _show(self, site: SiteId, state: SiteState, added: MapSites, changed: MapChanges) -> None:
        number = self._number.get(site)
        if number is not None and not _same_place(self._seen[site], state):
            # A change that cannot be expressed makes it another site of the same name.
            self._change(number, changed, state=Assigned.GONE)
            number = None
            self._seen_links = Map()  # Its links have another number too.
        assigned = Assigned.ALIVE if state.alive else Assigned.LOST
        load, queue = _load(state), _queue(state)
        if number is None:
            self._number[site] = len(self.sites.name)
            for columns in (self.sites, added):
                _append(columns, state, assigned, load, queue)
            return
        before = self.sites
        if (
            before.state[number] != assigned
            or before.cordoned[number] != _cordoned(state)
            or abs(before.load[number] - load) >= _LOAD_STEP
            or before.queue[number] != queue
        ):
            before.cordoned[number] = _cordoned(state)
            self._change(number, changed, state=assigned, load=load, queue=queue)

    def _change(
        self,
        number: int,
        changed: MapChanges,
        *,
        state: Assigned,
        load: float | None = None,
        queue: int | None = None,
    ) -> None:
        sites = self.sites
        sites.state[number] = int(state)
        sites.load[number] = sites.load[number] if load is None else load
        sites.queue[number] = sites.queue[number] if queue is None else queue
        changed.site.append(number)
        changed.state.append(sites.state[number])
        changed.load.append(sites.load[number])
        changed.queue.append(sites.queue[number])
        changed.cordoned.append(sites.cordoned[number])

    def _follow_links(self, snapshot: Drrt) -> tuple[list[MapLink], list[tuple[int, int]]]:
        """New or different links, and removed ones."""
        links: list[MapLink] = []
        cut: list[tuple[int, int]] = []
        number = self._number
        for source, readings in snapshot.links.items():
            if self._seen_links.get(source) is readings:
                continue
            shown = self._links.setdefault(source, {})
            for target, reading in readings.items():
                link = (
                    number[source],
                    number[target],
                    _figure(reading.rtt_s),
                    _figure(reading.throughput_bps),
                )
                if not _alike(shown.get(target), link):
                    shown[target] = link
                    links.append(link)
            cut += [shown.pop(one)[:2] for one in [t for t in shown if t not in readings]]
        for source in [source for source in self._links if source not in snapshot.links]:
            cut += [link[:2] for link in self._links.pop(source).values()]
        self._seen_links = snapshot.links
        return links, cut


def _same_place(before: SiteState, after: SiteState) -> bool:
    one, other = before.descriptor, after.descriptor
    return one is other or (
        one.owner == other.owner
        and one.jurisdiction == other.jurisdiction
        and one.roles == other.roles
    )


def _append(
    columns: MapSites, state: SiteState, assigned: Assigned, load: float, queue: int
) -> None:
    node = state.descriptor
    columns.name.append(node.site)
    columns.owner.append(node.owner)
    columns.jurisdiction.append(node.jurisdiction)
    columns.roles.append(sum(_BITS[role] for role in node.roles))
    columns.state.append(int(assigned))
    columns.load.append(load)
    columns.queue.append(queue)
    columns.cordoned.append(_cordoned(state))


def _cordoned(state: SiteState) -> bool:
    """Whether its operator took it out of service; descriptors of older sites do not say."""
    return state.descriptor.cordon is not msgspec.UNSET


def _load(state: SiteState) -> float:
    return round(state.load.cpu_share.value, 2) if state.load else 0.0


def _queue(state: SiteState) -> int:
    return int(state.load.queue.value) if state.load else 0


def _figure(reading: Reading | None) -> float | None:
    """A number with three digits."""
    return None if reading is None else float(f"{reading.value:.3g}")


def _alike(before: MapLink | None, after: MapLink) -> bool:
    """Whether a link looks unchanged."""
    if before is None or before[:2] != after[:2]:
        return False
    return all(
        one is other
        or (one is not None and other is not None and math.isclose(one, other, rel_tol=_LINK_STEP))
        for one, other in zip(before[2:], after[2:], strict=True)
    )
