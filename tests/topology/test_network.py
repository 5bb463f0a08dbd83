"""Links between sites that come, change and are forgotten."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from daitn.objects.identifiers import SiteId
from daitn.topology.network import LEAST_LINKS, LinkTable

from .medicine import NOW_S, link

sites = st.sampled_from("abcd")
steps = st.one_of(
    st.tuples(st.just("absorb"), sites, sites),
    st.tuples(st.just("delete"), sites, sites),
    st.tuples(st.just("forget"), sites, st.just("")),
)


@given(st.lists(steps, max_size=40))
def test_a_site_is_forgotten_with_its_links_and_no_others(told: list[tuple[str, str, str]]) -> None:
    table, pairs = LinkTable(), set[tuple[str, str]]()
    for at, (what, one, other) in enumerate(told):
        match what:
            case "absorb":
                assert table.absorb(link(one, other, rtt_s=0.1, at_s=at), NOW_S)
                pairs.add((one, other))
            case "delete":
                table.delete(SiteId(one), SiteId(other))
                pairs.discard((one, other))
            case _:
                table.forget(SiteId(one))
                pairs = {pair for pair in pairs if one not in pair}
        known = {(source, target) for source, targets in table.known.items() for target in targets}
        assert known == pairs
        assert all(table.known.values())
    for site in "abcd":
        table.forget(SiteId(site))
    assert not table._sources


def test_a_source_beyond_its_share_loses_the_links_measured_longest_ago() -> None:
    table = LinkTable(most=2 * LEAST_LINKS)
    for at in range(3 * LEAST_LINKS):
        for source in ("one", "other"):
            assert table.absorb(link(source, f"site-{at}", rtt_s=0.1, at_s=at), NOW_S)
    for targets in table.known.values():
        assert LEAST_LINKS * 7 / 8 <= len(targets) <= LEAST_LINKS
        newest = range(3 * LEAST_LINKS - len(targets), 3 * LEAST_LINKS)
        assert set(targets) == {f"site-{at}" for at in newest}


def test_a_source_cannot_crowd_out_the_links_of_others() -> None:
    table = LinkTable(most=4 * LEAST_LINKS)
    modest = {f"site-{at}" for at in range(LEAST_LINKS)}
    for target in modest:
        table.absorb(link("modest", target, rtt_s=0.1, at_s=0), NOW_S)
    for at in range(1, 1000):
        table.absorb(link("greedy", f"site-{at}", rtt_s=0.1, at_s=at), NOW_S)
    assert set(table.known[SiteId("modest")]) == modest
    assert len(table.known[SiteId("greedy")]) <= 2 * LEAST_LINKS


measured = st.tuples(sites, sites, st.sampled_from([None, 1e3, 1e6, 2e6, 1e9]))


@given(st.lists(st.one_of(steps, measured), max_size=80))
def test_a_line_is_the_upper_quartile_of_what_is_known_of_it(told: list[tuple[str, ...]]) -> None:
    table = LinkTable(most=LEAST_LINKS)
    for at, (what, one, other) in enumerate(told):
        match what:
            case "delete":
                table.delete(SiteId(one), SiteId(other))
            case "forget":
                table.forget(SiteId(one))
            case "absorb":
                table.absorb(link(one, other, rtt_s=0.1, at_s=at), NOW_S)
            case source if other is not None:
                for target in range(5):
                    value = float(other) * (1 + (at * target) % 3)
                    found = link(source, f"{one}-{target}", throughput_bps=value, at_s=at)
                    table.absorb(found, NOW_S)
    for site in "abcd":
        links = table.known.get(SiteId(site)) or Map()
        speeds = sorted(one.throughput_bps.value for one in links.values() if one.throughput_bps)
        expected = speeds[len(speeds) * 3 // 4] if len(speeds) >= 4 else None
        assert table.lines.bps.get(SiteId(site)) == expected


@given(st.lists(st.integers(1, 6 * LEAST_LINKS), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_however_sources_come_all_have_no_more_than_the_limit(counts: list[int]) -> None:
    most = 8 * LEAST_LINKS
    table = LinkTable(SiteId("origin"), most=most)
    for number, count in enumerate(counts):
        for at in range(count):
            table.absorb(link("origin", f"site-{at}", rtt_s=0.1, at_s=at), NOW_S)
            table.absorb(link(f"source-{number}", f"site-{at}", rtt_s=0.1, at_s=at), NOW_S)
        sizes = {source: len(targets) for source, targets in table.known.items()}
        own = sizes.pop(SiteId("origin"))
        assert own == max(counts[: number + 1]), "its own links are all kept"
        assert sum(sizes.values()) <= max(most, LEAST_LINKS * len(table.known))
        assert sizes[SiteId(f"source-{number}")] >= min(count, LEAST_LINKS * 7 // 8)


def test_the_links_of_the_site_that_decides_by_them_are_all_kept() -> None:
    table = LinkTable(SiteId("gateway"), most=1)
    for at in range(3 * LEAST_LINKS):
        table.absorb(link("gateway", f"site-{at}", rtt_s=0.1, at_s=at), NOW_S)
    table.absorb(link("other", "gateway", rtt_s=0.1, at_s=0), NOW_S)
    for at in range(1, 3 * LEAST_LINKS):
        table.absorb(link("other", f"site-{at}", rtt_s=0.1, at_s=at), NOW_S)
    assert len(table.known[SiteId("gateway")]) == 3 * LEAST_LINKS
    assert "gateway" in table.known[SiteId("other")]
    assert len(table.known[SiteId("other")]) <= LEAST_LINKS + 1
