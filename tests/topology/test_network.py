"""Links between sites that come, change and are forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.identifiers import SiteId
from daitn.topology.network import LinkTable

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
