"""The map's changes add up to the map: whoever applies them sees what is there."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daitn.oam.api.answers import MapDelta, MapLink, MapSites
from daitn.oam.api.live_map import LiveMap
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.topology.state import DrrtState

SITES = [SiteId(name) for name in ("ash", "beech", "cedar", "date")]
FORGOTTEN_S = 100.0
sites = st.sampled_from(SITES)
COLUMNS = ("name", "owner", "jurisdiction", "roles", "state", "load", "queue", "cordoned")


class Page:
    """A browser's copy of the map, from its changes alone."""

    def __init__(self) -> None:
        self.sites = MapSites()
        self.links: dict[tuple[int, int], MapLink] = {}

    def apply(self, delta: MapDelta) -> None:
        for column in COLUMNS:
            getattr(self.sites, column).extend(getattr(delta.added, column))
        changed = delta.changed
        for at, number in enumerate(changed.site):
            for column in ("state", "load", "queue", "cordoned"):
                getattr(self.sites, column)[number] = getattr(changed, column)[at]
        for pair in delta.cut:
            self.links.pop(pair, None)
        self.links |= {link[:2]: link for link in delta.links}

    def shown(self) -> dict[str, tuple[str, int, float, int]]:
        """By name, of the sites that are not gone: owner, state, load, queue."""
        table = self.sites
        rows = zip(table.name, table.owner, table.state, table.load, table.queue, strict=True)
        return {name: (who, at, load, queue) for name, who, at, load, queue in rows if at != 2}

    def linked(self) -> dict[tuple[str, str], MapLink]:
        """By names, of the links between sites that are not gone."""
        name, state = self.sites.name, self.sites.state
        return {
            (name[one], name[other]): link
            for (one, other), link in self.links.items()
            if 2 not in (state[one], state[other])
        }


class Changes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.state = DrrtState(forget_after_s=FORGOTTEN_S)
        self.map, self.page = LiveMap(), Page()
        self.version = 0

    @rule(site=sites, owner=st.sampled_from(["x", "y"]))
    def joins(self, site: SiteId, owner: str) -> None:
        self.version += 1
        node = NodeDescriptor(
            site=site,
            owner=OwnerId(owner),
            roles=(Role.DATA,),
            jurisdiction="US",
            public_key="k",
            started_at_s=self.now_s,
            version=self.version,
            software="",
        )
        self.state.absorb(node, self.now_s)
        self.state.appeared(site, self.now_s)

    @rule(site=sites)
    def leaves(self, site: SiteId) -> None:
        self.state.lost(site, self.now_s)

    @rule(site=sites)
    def is_removed(self, site: SiteId) -> None:
        self.state.removed(site, self.now_s)

    @rule(site=sites, load=st.floats(0.0, 1.0), queue=st.integers(0, 3))
    def works(self, site: SiteId, load: float, queue: int) -> None:
        reading = LoadReading(
            site=site,
            queue=self.read(queue),
            cpu_share=self.read(load),
            disk_free_bytes=self.read(1),
        )
        self.state.absorb(reading, self.now_s)

    @rule(one=sites, other=sites, rtt_s=st.floats(0.001, 1.0))
    def measures(self, one: SiteId, other: SiteId, rtt_s: float) -> None:
        link = LinkReading(source=one, target=other, rtt_s=self.read(rtt_s))
        self.state.absorb(link, self.now_s)

    @rule(seconds=st.sampled_from([1.0, 50.0, FORGOTTEN_S + 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def a_page_follows(self) -> None:
        self.now_s += 1.0
        snapshot = self.state.snapshot(self.now_s)
        delta = self.map.follow(snapshot)
        if delta is not None:
            self.page.apply(delta)
        shown = self.page.shown()
        assert set(shown) == set(snapshot.sites)
        for site, state in snapshot.sites.items():
            owner, alive, load, queue = shown[site]
            assert owner == state.descriptor.owner
            assert alive == int(state.alive)
            assert abs(load - (state.load.cpu_share.value if state.load else 0.0)) <= 0.06
            assert queue == (state.load.queue.value if state.load else 0)
        known = {(s, t): link for s, all_ in snapshot.links.items() for t, link in all_.items()}
        linked = self.page.linked()
        assert set(linked) == set(known)
        for pair, link in known.items():
            rtt_s = linked[pair][2]
            assert link.rtt_s is not None
            assert rtt_s is not None
            assert abs(rtt_s - link.rtt_s.value) <= 0.21 * max(rtt_s, link.rtt_s.value)
        assert self.map.follow(snapshot) is None

    @invariant()
    def the_page_is_the_map(self) -> None:
        assert self.page.sites == self.map.sites
        live = {link[:2]: link for link in self.map.links}
        state = self.page.sites.state
        assert {k: v for k, v in live.items() if 2 not in (state[k[0]], state[k[1]])} == {
            k: v for k, v in self.page.links.items() if 2 not in (state[k[0]], state[k[1]])
        }

    def read(self, value: float) -> Reading:
        return Reading(value=value, at_s=self.now_s, origin=SITES[0])


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=60, stateful_step_count=30)
