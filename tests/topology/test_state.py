"""The live DRRT: what it believes of facts that come late, twice, early, or not at all."""

from __future__ import annotations

import math
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.topology.snapshot import Drrt
from daitn.topology.state import MOST_EARLY, DrrtState, Fact

from .medicine import NOW_S, data_site, dataset, link

SITES = [SiteId(name) for name in ("a", "b", "c")]

sites = st.sampled_from(SITES)
readings = st.builds(
    Reading,
    st.floats(0, 1e9, allow_nan=False),
    st.integers(0, 6).map(float),
    sites,
)
links = st.builds(
    LinkReading,
    source=sites,
    target=sites,
    rtt_s=st.none() | readings,
    throughput_bps=st.none() | readings,
    loss=st.none() | readings,
)
loads = st.builds(
    LoadReading, site=sites, queue=readings, cpu_share=readings, disk_free_bytes=readings
)
descriptors = st.builds(
    lambda site, started_at_s, version: data_site(
        site, started_at_s=float(started_at_s), version=version
    ),
    sites,
    st.integers(0, 2),
    st.integers(1, 3),
)
facts: st.SearchStrategy[Fact] = links | loads | descriptors
words = st.tuples(st.sampled_from(["appeared", "lost"]), sites)


def absorbed(told: list[Fact]) -> DrrtState:
    state = DrrtState()
    for fact in told:
        state.absorb(fact, NOW_S)
    return state


def content(snapshot: Drrt) -> object:
    return dict(snapshot.sites), {site: dict(to) for site, to in snapshot.links.items() if to}


@given(st.lists(facts, max_size=25).flatmap(lambda f: st.tuples(st.just(f), st.permutations(f))))
def test_the_order_of_facts_does_not_matter(told: tuple[list[Fact], list[Fact]]) -> None:
    one, other = (absorbed(order).snapshot(NOW_S) for order in told)
    assert content(one) == content(other)


@given(st.lists(facts, max_size=20))
def test_a_fact_told_again_changes_nothing(told: list[Fact]) -> None:
    state = absorbed(told)
    before = state.snapshot(NOW_S)
    assert [state.absorb(fact, NOW_S) for fact in told] == [False] * len(told)
    assert state.snapshot(NOW_S) == before


@given(st.lists(facts | words, max_size=40))
def test_versions_only_grow_and_tell_snapshots_apart(
    told: list[Fact | tuple[str, SiteId]],
) -> None:
    state = DrrtState()
    now_s = NOW_S
    taken = [state.snapshot(now_s)]
    copies = [content(taken[0])]
    for fact in told:
        now_s += 0.001
        if isinstance(fact, tuple):
            changed = (state.appeared if fact[0] == "appeared" else state.lost)(fact[1], now_s)
        else:
            changed = state.absorb(fact, now_s)
        last = taken[-1]
        taken.append(state.snapshot(now_s))
        copies.append(content(taken[-1]))
        assert changed == (taken[-1].version > last.version) == (copies[-1] != copies[-2])
        assert taken[-1].version >= last.version
    assert [content(snapshot) for snapshot in taken] == copies


def test_a_link_keeps_what_a_later_reading_does_not_measure() -> None:
    state = absorbed([data_site("a"), data_site("b"), link("a", "b", throughput_bps=5e6)])
    assert state.absorb(link("a", "b", rtt_s=0.02, at_s=NOW_S), NOW_S)
    known = state.snapshot(NOW_S).link(SITES[0], SITES[1])
    assert known is not None
    assert known.rtt_s == Reading(0.02, NOW_S, SiteId("a"))
    assert known.throughput_bps == Reading(5e6, NOW_S - 60, SiteId("a"))


def test_an_older_reading_and_an_older_descriptor_are_ignored() -> None:
    state = absorbed([data_site("a", version=2), data_site("b"), link("a", "b", rtt_s=0.02)])
    assert not state.absorb(link("a", "b", rtt_s=9.0, at_s=NOW_S - 61), NOW_S)
    assert not state.absorb(data_site("a", version=1, owner="old"), NOW_S)
    assert state.snapshot(NOW_S).sites[SITES[0]].descriptor.version == 2


def test_a_restarted_node_starts_counting_again() -> None:
    state = absorbed([data_site("a", version=7)])
    assert state.absorb(data_site("a", started_at_s=5.0, version=1), NOW_S)


def test_a_link_waits_for_both_of_its_ends() -> None:
    state = absorbed([link("a", "b", rtt_s=0.02), data_site("b")])
    assert not state.snapshot(NOW_S).links
    state.absorb(data_site("a"), NOW_S)
    assert state.snapshot(NOW_S).link(SITES[0], SITES[1]) == link("a", "b", rtt_s=0.02)


def test_only_appeared_brings_a_lost_site_back() -> None:
    state = absorbed([data_site("a")])
    state.lost(SITES[0], NOW_S)
    state.absorb(data_site("a", version=2), NOW_S)
    assert state.snapshot(NOW_S).alive() == ()
    assert state.appeared(SITES[0], NOW_S + 1)
    assert state.snapshot(NOW_S + 1).alive() == ("a",)


def test_a_site_lost_before_its_descriptor_arrives_is_not_alive() -> None:
    state = DrrtState()
    state.lost(SITES[0], NOW_S)
    state.absorb(data_site("a"), NOW_S)
    assert not state.snapshot(NOW_S).sites[SITES[0]].alive


def test_a_lost_site_is_forgotten_with_its_links_and_not_before_its_time() -> None:
    state = DrrtState(forget_after_s=100)
    for site in "abc":
        state.absorb(data_site(site), NOW_S)
    for source, target in ("ab", "ba", "bc"):
        state.absorb(link(source, target, rtt_s=1.0), NOW_S)
    state.lost(SITES[0], NOW_S)
    assert SITES[0] in state.snapshot(NOW_S + 100).sites
    later = state.snapshot(NOW_S + 101)
    assert set(later.sites) == {"b", "c"}
    assert later.link(SITES[0], SITES[1]) is later.link(SITES[1], SITES[0]) is None
    assert later.link(SITES[1], SITES[2]) is not None


def test_a_site_that_is_removed_is_forgotten_at_once_with_its_links() -> None:
    state = DrrtState()
    for site in "ab":
        state.absorb(data_site(site), NOW_S)
    for source, target in ("ab", "ba", "ac"):
        state.absorb(link(source, target, rtt_s=1.0), NOW_S)
    assert state.removed(SITES[0], NOW_S)
    after = state.snapshot(NOW_S)
    assert set(after.sites) == {"b"}
    assert not any(targets for targets in after.links.values())
    assert not state.removed(SITES[0], NOW_S)
    state.absorb(data_site("a", version=2), NOW_S)
    assert state.snapshot(NOW_S).sites[SITES[0]].alive


def test_a_site_that_came_back_is_not_forgotten() -> None:
    state = DrrtState(forget_after_s=100)
    state.absorb(data_site("a"), NOW_S)
    state.lost(SITES[0], NOW_S)
    state.appeared(SITES[0], NOW_S + 50)
    assert state.snapshot(NOW_S + 500).alive() == ("a",)


def test_facts_of_a_site_that_never_describes_itself_are_forgotten() -> None:
    state = DrrtState(forget_after_s=100)
    state.absorb(data_site("b"), NOW_S)
    state.absorb(link("a", "b", rtt_s=1.0), NOW_S)
    state.snapshot(NOW_S + 101)
    state.absorb(data_site("a"), NOW_S + 102)
    assert not state.snapshot(NOW_S + 102).links


def test_a_clock_that_runs_ahead_does_not_freeze_its_readings() -> None:
    state = absorbed([data_site("a"), data_site("b"), link("a", "b", rtt_s=9.0, at_s=NOW_S + 1e6)])
    assert state.absorb(link("a", "b", rtt_s=0.02, at_s=NOW_S + 1), NOW_S + 1)
    known = state.snapshot(NOW_S + 1).link(SITES[0], SITES[1])
    assert known is not None
    assert known.rtt_s == Reading(0.02, NOW_S + 1, SiteId("a"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reading_that_is_no_number_is_told_and_changes_nothing(value: float) -> None:
    state = absorbed([data_site("a"), data_site("b")])
    before = state.snapshot(NOW_S)
    with pytest.raises(InvalidInput, match="not a finite number") as told:
        state.absorb(link("a", "b", throughput_bps=value), NOW_S)
    assert told.value.field == "throughput_bps"
    assert state.snapshot(NOW_S) == before


def test_load_is_kept_over_a_new_descriptor() -> None:
    reading = Reading(3.0, NOW_S, SITES[0])
    load = LoadReading(site=SITES[0], queue=reading, cpu_share=reading, disk_free_bytes=reading)
    state = absorbed([load, data_site("a"), data_site("a", dataset("a", "medicine"), version=2)])
    known = state.snapshot(NOW_S).sites[SITES[0]]
    assert known.load == load
    assert known.descriptor.datasets
    assert msgspec.json.encode(known)


def test_sites_that_only_others_speak_of_take_up_little() -> None:
    tracemalloc.start()
    state = DrrtState()
    state.absorb(data_site("a"), NOW_S)
    for number in range(4 * MOST_EARLY):
        state.absorb(link("a", f"nowhere-{number}", rtt_s=0.1), NOW_S)
        state.absorb(link(f"no-{number}", "nowhere", rtt_s=0.1), NOW_S)
        state.absorb(link("somewhere", f"else-{number}", rtt_s=0.1), NOW_S)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4000 * MOST_EARLY
    state.absorb(link("a", "b", rtt_s=0.1), NOW_S)
    state.absorb(data_site("b"), NOW_S)
    assert dict(state.snapshot(NOW_S).links[SiteId("a")]).keys() == {"b"}


def test_since_when_a_site_is_alive_or_lost_is_kept_over_a_new_descriptor() -> None:
    state = absorbed([data_site("a")])
    state.absorb(data_site("a", version=2), NOW_S + 5)
    assert state.snapshot(NOW_S).sites[SITES[0]].since_s == NOW_S
    state.lost(SITES[0], NOW_S + 6)
    state.absorb(data_site("a", version=3), NOW_S + 7)
    assert state.snapshot(NOW_S).sites[SITES[0]].since_s == NOW_S + 6
    state.appeared(SITES[0], NOW_S + 8)
    assert state.snapshot(NOW_S).sites[SITES[0]].since_s == NOW_S + 8


def test_since_when_a_site_is_alive_is_unknown_if_it_was_there_before() -> None:
    state = DrrtState()
    state.absorb(data_site("a"), NOW_S, alive_before=True)
    assert state.snapshot(NOW_S).sites[SITES[0]].since_s is None
    state.lost(SITES[0], NOW_S + 1)
    assert state.snapshot(NOW_S).sites[SITES[0]].since_s == NOW_S + 1
