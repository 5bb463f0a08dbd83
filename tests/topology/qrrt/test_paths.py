"""How a gateway reaches facilities: directly, or through one other gateway."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryConstraints
from daitn.objects.readings import LinkReading
from daitn.topology.qrrt.paths import ASSUMED_RTT_S, RELAY_S, paths_from, permitted
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.relevance import STALE_AFTER_S

from .world import NOW_S, deployment, facility, gateway, link, state_of

GW, HUB, MDF = SiteId("gw"), SiteId("hub"), SiteId("mdf")


def world(*links: LinkReading) -> Qrrt:
    nodes = [gateway("gw"), gateway("hub"), facility("mdf", deployment("doctor"))]
    return state_of(nodes, *links).snapshot()


def path(snapshot: Qrrt, *broken: SiteId, now_s: float = NOW_S) -> tuple[float, str | None, bool]:
    """Round trip, relay and whether it was measured, to the only row."""
    paths = paths_from(snapshot, GW, now_s, frozenset(broken))
    at = int(paths.relay[0])
    return (
        float(paths.rtt_s[0]),
        None if at < 0 else paths.relays[at],
        bool(paths.measured[0]),
    )


def test_the_own_site_is_nowhere_away() -> None:
    nodes = [gateway("gw"), facility("gw", deployment("doctor"), version=2)]
    assert path(state_of(nodes).snapshot()) == (0.0, None, True)
    assert path(state_of(nodes).snapshot(), GW) == (0.0, None, True)


def test_a_way_that_nobody_measured_is_assumed() -> None:
    assert path(world()) == (ASSUMED_RTT_S, None, False)
    measured = world(link("gw", "mdf", 0.2))
    assert path(measured) == (0.2, None, True)
    assert path(measured, now_s=NOW_S + STALE_AFTER_S) == (ASSUMED_RTT_S, None, False)


def test_the_gateways_own_measurement_counts_before_what_the_other_end_says() -> None:
    assert path(world(link("gw", "mdf", 0.2), link("mdf", "gw", 0.0))) == (0.2, None, True)
    assert path(world(link("mdf", "gw", 0.1))) == (0.1, None, True)


def test_losses_are_counted_in() -> None:
    assert path(world(link("gw", "mdf", 0.1, loss=0.5)))[0] == pytest.approx(0.2)
    assert path(world(link("gw", "mdf", 0.1, loss=1.0))) == (math.inf, None, True)


def test_a_relay_is_taken_where_it_is_a_good_deal_faster() -> None:
    through = (link("gw", "hub", 0.01), link("hub", "mdf", 0.02))
    found = path(world(link("gw", "mdf", 0.2), *through))
    assert found[0] == pytest.approx(0.03 + RELAY_S)
    assert found[1:] == (HUB, True)
    assert path(world(link("gw", "mdf", 0.035), *through)) == (0.035, None, True)


def test_a_broken_site_is_reached_through_a_relay_or_not_at_all() -> None:
    direct = link("gw", "mdf", 0.001)
    through = (link("gw", "hub", 0.3), link("hub", "mdf", 0.3))
    assert path(world(direct, *through), MDF)[1] == HUB
    assert path(world(direct, *through), MDF, HUB) == (math.inf, None, True)
    assert path(world(direct, through[0]), MDF)[0] == math.inf


def test_a_relay_that_is_gone_is_not_taken() -> None:
    nodes = [gateway("gw"), gateway("hub"), facility("mdf", deployment("doctor"))]
    state = state_of(nodes, link("gw", "hub", 0.01), link("hub", "mdf", 0.01))
    assert path(state.snapshot(), MDF)[1] == HUB
    state.lost(HUB, NOW_S)
    assert path(state.snapshot(), MDF)[0] == math.inf


def test_relays_that_may_not_see_a_query_are_avoided() -> None:
    nodes = [
        gateway("gw"),
        gateway("hub", jurisdiction="CA", owner="hubs"),
        facility("mdf", deployment("doctor")),
    ]
    links = (link("gw", "mdf", 0.2), link("gw", "hub", 0.01), link("hub", "mdf", 0.01))
    snapshot = state_of(nodes, *links).snapshot()
    paths = paths_from(snapshot, GW, NOW_S)

    def way(found: Paths) -> tuple[float, bool]:
        return float(found.rtt_s[0]), int(found.relay[0]) >= 0

    assert permitted(paths, snapshot, QueryConstraints()) is paths
    assert way(permitted(paths, snapshot, QueryConstraints(jurisdictions=("US", "CA"))))[1]
    assert way(permitted(paths, snapshot, QueryConstraints(owners=("nih", "hubs"))))[1]
    assert way(permitted(paths, snapshot, QueryConstraints(jurisdictions=("US",)))) == (0.2, False)
    assert way(permitted(paths, snapshot, QueryConstraints(owners=("nih",)))) == (0.2, False)
    bought = gateway("hub", jurisdiction="CA", owner="nih", version=2)
    later = state_of([*nodes, bought], *links).snapshot()
    assert way(permitted(paths, later, QueryConstraints(owners=("nih",))))[1], (
        "the relay is another's now"
    )
    broken = paths_from(snapshot, GW, NOW_S, frozenset({MDF}))
    assert way(permitted(broken, snapshot, QueryConstraints(owners=("nih",)))) == (math.inf, False)


rtts = st.one_of(st.none(), st.floats(0.0, 2.0))
losses = st.one_of(st.none(), st.floats(0.0, 1.0))
SITES = ("gw", "r1", "r2", "r3", "mdf")


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(SITES), st.sampled_from(SITES)),
        st.tuples(st.floats(0.0, 2.0), losses),
    ),
    st.sets(st.sampled_from(SITES[1:])),
)
def test_a_path_is_the_best_of_all_and_never_worse_than_the_direct_one(
    measured: dict[tuple[str, str], tuple[float, float | None]], broken: set[str]
) -> None:
    links = {
        ends: link(*ends, rtt_s, loss=loss)
        for ends, (rtt_s, loss) in measured.items()
        if ends[0] != ends[1]
    }
    nodes = [gateway(site) for site in SITES[:-1]]
    snapshot = state_of([*nodes, facility("mdf", deployment("m"))], *links.values()).snapshot()
    rtt_s, relay, _ = path(snapshot, *map(SiteId, broken))

    def leg_s(source: str, target: str) -> float | None:
        for ends in ((source, target), (target, source)):
            if ends in links:
                value, loss = measured[ends]
                loss = loss or 0.0
                return math.inf if loss >= 1 else value / (1 - loss)
        return None

    known_s = leg_s("gw", "mdf")
    direct_s = ASSUMED_RTT_S if known_s is None else known_s
    direct_s = math.inf if "mdf" in broken else direct_s
    through_s = {
        via: first_s + second_s + RELAY_S
        for via in SITES[1:-1]
        if via not in broken
        and (first_s := leg_s("gw", via)) is not None
        and (second_s := leg_s(via, "mdf")) is not None
    }
    best_s = min(through_s.values(), default=math.inf)
    assert rtt_s <= direct_s
    if best_s < 0.8 * direct_s:
        assert relay is not None
        assert rtt_s == through_s[relay] == best_s
    else:
        assert (rtt_s, relay) == (direct_s, None)
