"""The live DRRT: facts go in, immutable versions come out.

Facts may arrive in any order, repeatedly, and before their site's descriptor. The resulting state
does not depend on the order: the later of two descriptors of a site wins, and the later-measured of
two readings of a quantity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from immutables import Map

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, LoadReading
from daitn.topology.network import LinkTable, is_later, merged_link, merged_load, usable
from daitn.topology.snapshot import Drrt, SiteState

__all__ = ["MOST_EARLY", "DrrtState", "Fact"]

MOST_EARLY = 10_000
"""Limit on sites without a descriptor, plus the links of such sites: anybody can invent them.
Beyond this the oldest are dropped."""

Fact = NodeDescriptor | LinkReading | LoadReading


@dataclass
class _Early:
    """Facts about a site that has not published its descriptor yet."""

    since_s: float
    alive: bool = True
    load: LoadReading | None = None
    links: dict[tuple[SiteId, SiteId], LinkReading] = field(default_factory=dict)


class DrrtState:
    """Absorbs what sites publish and measure; gives snapshots that never change.

    A site is alive from its first descriptor until `lost`, and again from `appeared`: only these
    two decide it, so a late descriptor cannot revive a site that left. A lost site stays known,
    because its data may come back; `forget_after_s` seconds later it is forgotten with its links.

    Facts about a site without a descriptor wait for it equally long; a snapshot contains no link
    with an unknown end. Clocks that run ahead gain nothing: a reading from the future counts as
    made now.
    """

    def __init__(self, *, forget_after_s: float = 3600.0) -> None:
        if not forget_after_s > 0:
            raise InvalidInput(
                f"{forget_after_s} is not a positive number of seconds",
                field="forget_after_s",
                fix="state after how many seconds a lost site is forgotten, for instance 3600",
            )
        self._forget_after_s = forget_after_s
        self._version = 0
        self._sites: Map[SiteId, SiteState] = Map()
        self._links = LinkTable()
        # Both ordered by time, so that forgetting examines the oldest only.
        self._lost_at_s: dict[SiteId, float] = {}
        self._early: dict[SiteId, _Early] = {}
        self._early_facts = 0
        """Number of sites and links in it."""

    @property
    def version(self) -> int:
        """Counts every change that a snapshot shows."""
        return self._version

    def snapshot(self, now_s: float) -> Drrt:
        """The topology as known at `now_s`, in constant time."""
        self._forget(now_s)
        return Drrt(
            version=self._version,
            at_s=now_s,
            sites=self._sites,
            links=self._links.known,
            lines_bps=self._links.lines.bps,
        )

    def absorb(self, fact: Fact, now_s: float, *, alive_before: bool = False) -> bool:
        """Take in what a site published or measured. Returns whether a snapshot now differs.

        `alive_before`: a site that first describes itself may have been alive for long.

        Raises `InvalidInput` for a reading that is negative or not finite; the state is then
        unchanged.
        """
        if isinstance(fact, LinkReading):
            return self._absorb_link(fact, now_s)
        if isinstance(fact, LoadReading):
            return self._absorb_load(fact, now_s)
        return self._absorb_descriptor(fact, now_s, alive_before)

    def appeared(self, site: SiteId, now_s: float) -> bool:
        """A site connected (again). Returns whether a snapshot now differs."""
        return self._tell_alive(site, True, now_s)

    def lost(self, site: SiteId, now_s: float) -> bool:
        """A site disconnected. Returns whether a snapshot now differs."""
        return self._tell_alive(site, False, now_s)

    def removed(self, site: SiteId, now_s: float) -> bool:
        """Forget a site at once. Returns whether a snapshot now differs."""
        self._forget_early(site)
        if site not in self._sites:
            return False
        self._lost_at_s.setdefault(site, now_s)
        self._forget_site(site)
        return True

    def _tell_alive(self, site: SiteId, alive: bool, now_s: float) -> bool:
        state = self._sites.get(site)
        if state is None:
            self._early_of(site, now_s).alive = alive
            return False
        if state.alive == alive:
            return False
        self._lost_at_s.pop(site, None)
        if not alive:
            self._lost_at_s[site] = now_s
        changed = msgspec.structs.replace(state, alive=alive, changed_at_s=now_s, since_s=now_s)
        self._put_site(site, changed)
        return True

    def _absorb_descriptor(
        self, descriptor: NodeDescriptor, now_s: float, alive_before: bool
    ) -> bool:
        site = descriptor.site
        state = self._sites.get(site)
        if state is None:
            self._admit(descriptor, now_s, alive_before)
            return True
        if not is_later(descriptor, state.descriptor):
            return False
        changed = msgspec.structs.replace(state, descriptor=descriptor, changed_at_s=now_s)
        self._put_site(site, changed)
        return True

    def _admit(self, descriptor: NodeDescriptor, now_s: float, alive_before: bool) -> None:
        """Admit a site with its first descriptor, and apply the facts that arrived early."""
        site = descriptor.site
        early = self._forget_early(site) or _Early(since_s=now_s)
        if not early.alive:
            self._lost_at_s[site] = now_s
        self._put_site(
            site,
            SiteState(
                descriptor=descriptor,
                alive=early.alive,
                changed_at_s=now_s,
                since_s=None if alive_before and early.alive else now_s,
                load=early.load,
            ),
        )
        for link in early.links.values():
            self._absorb_link(link, now_s)

    def _absorb_link(self, link: LinkReading, now_s: float) -> bool:
        source, target = link.source, link.target
        for end in (source, target):
            if end not in self._sites:
                early = self._early_of(end, now_s)
                known = early.links.get((source, target))
                early.links[source, target] = merged_link(known, link, now_s)
                if known is None:
                    self._early_facts += 1
                    self._make_room()
                return False
        changed = self._links.absorb(link, now_s)
        self._version += changed
        return changed

    def _absorb_load(self, load: LoadReading, now_s: float) -> bool:
        load = LoadReading(
            site=load.site,
            queue=usable(load.queue, now_s, "queue"),
            cpu_share=usable(load.cpu_share, now_s, "cpu_share"),
            disk_free_bytes=usable(load.disk_free_bytes, now_s, "disk_free_bytes"),
        )
        state = self._sites.get(load.site)
        if state is None:
            early = self._early_of(load.site, now_s)
            early.load = merged_load(early.load, load)
            return False
        merged = merged_load(state.load, load)
        if merged is state.load:
            return False
        self._put_site(
            load.site,
            SiteState(
                descriptor=state.descriptor,
                alive=state.alive,
                changed_at_s=state.changed_at_s,
                since_s=state.since_s,
                load=merged,
            ),
        )
        return True

    def _early_of(self, site: SiteId, now_s: float) -> _Early:
        early = self._early.get(site)
        if early is None:
            early = self._early[site] = _Early(since_s=now_s)
            self._early_facts += 1
            self._make_room()
        return early

    def _make_room(self) -> None:
        """Drop the oldest facts about sites without a descriptor."""
        while self._early_facts > MOST_EARLY and len(self._early) > 1:
            self._forget_early(next(iter(self._early)))
        if self._early_facts > MOST_EARLY:
            (only,) = self._early.values()
            del only.links[next(iter(only.links))]
            self._early_facts -= 1

    def _forget_early(self, site: SiteId) -> _Early | None:
        early = self._early.pop(site, None)
        if early is not None:
            self._early_facts -= 1 + len(early.links)
        return early

    def _put_site(self, site: SiteId, state: SiteState) -> None:
        self._sites = self._sites.set(site, state)
        self._version += 1

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - self._forget_after_s
        while self._lost_at_s and next(iter(self._lost_at_s.values())) < oldest_s:
            self._forget_site(next(iter(self._lost_at_s)))
        while self._early and next(iter(self._early.values())).since_s < oldest_s:
            self._forget_early(next(iter(self._early)))

    def _forget_site(self, site: SiteId) -> None:
        del self._lost_at_s[site]
        self._sites = self._sites.delete(site)
        self._links.forget(site)
        self._version += 1
