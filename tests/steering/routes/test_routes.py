"""Loop-free at every instant, shortest in the end: on random networks with random faults."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daitn.steering.routes.table import AggregationLimits
from daitn.steering.wire.offers import Offer
from tests.scenes.searches import cases

from .harness import Network, Watch, assert_converged, home, no_loops, random_links

seeds = st.integers(min_value=0, max_value=2**32)
slow = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=cases(20))
TOPICS = tuple(f"answer:{parent}/{child}" for parent in "abc" for child in "xyz")


def offers_of(site: str, rng: Random, *, topics: int = 2) -> tuple[Offer, ...]:
    keys = rng.sample(TOPICS, topics)
    return (
        home(site),
        *(
            Offer(key, fit=rng.random(), trust=rng.randrange(3), serve_s=rng.random(),
                  price_usd=rng.choice((0.0, 0.001, 0.01)), owner=f"owner {site[1:]}")
            for key in keys
        ),
    )  # fmt: skip


def build(
    seed: int,
    size: int,
    *,
    limits: AggregationLimits | None = None,
    degree: float = 3.0,
    watch: Watch | None = None,
    topics: int = 2,
) -> Network:
    """A random network, its links just coming up."""
    rng = Random(seed)
    network = Network(rng, limits=limits, watch=watch)
    sites = [f"s{number:02}" for number in range(size)]
    for site in sites:
        network.add(site, offers_of(site, rng, topics=topics))
    for a, b in random_links(rng, sites, degree):
        network.connect(a, b, rng.uniform(0.0, 0.3), rng.uniform(0.0, 0.3))
    return network


def disturb(network: Network, times: int, *, restarts: bool = True) -> None:
    """Links and sites come and go, costs jitter and jump, offers change."""
    rng, sites = network.rng, sorted(network.tables)
    kinds = ["down", "down", "up", "up", "up", "cost", "cost", "offer"]
    for _ in range(times):
        network.run(rng.choice((0.0, 0.1, 1.0, 10.0, 60.0, 200.0)) * rng.random())
        a, b = rng.sample(sites, 2)
        kind = rng.choice([*kinds, "restart"] if restarts else kinds)
        if kind == "restart":
            for neighbour in network.restart(a):
                network.connect(a, neighbour, rng.uniform(0.0, 0.3))
        elif kind == "offer":
            network.offer(a, offers_of(a, rng))
        elif kind == "up":
            if frozenset((a, b)) not in network.links:
                network.connect(a, b, rng.uniform(0.0, 0.3), rng.uniform(0.0, 0.3))
        elif network.links:
            a, b = sorted(rng.choice(sorted(map(sorted, network.links))))
            if kind == "down":
                network.disconnect(a, b)
            else:
                network.cost(a, b, rng.uniform(0.0, 1.0))


@slow
@given(seed=seeds, size=st.integers(2, 9), times=st.integers(0, 30))
def test_no_loop_at_any_instant_and_shortest_paths_in_the_end(
    seed: int, size: int, times: int
) -> None:
    generous = AggregationLimits(best=size)
    network = build(seed, size, limits=generous, watch=no_loops())
    disturb(network, times)
    network.run(1000.0)
    assert_converged(network)


@slow
@given(seed=seeds, size=st.integers(4, 9), times=st.integers(0, 30))
def test_no_loop_either_where_origins_are_left_out(seed: int, size: int, times: int) -> None:
    network = build(seed, size, limits=AggregationLimits(best=2, most_keys=4), watch=no_loops())
    disturb(network, times)
    network.run(100.0)


@slow
@given(seed=seeds, size=st.integers(3, 9))
def test_a_partition_is_noticed_without_counting_to_infinity(seed: int, size: int) -> None:
    network = build(seed, size, limits=AggregationLimits(best=size), watch=no_loops())
    network.run(400.0)
    lost = "s00"
    before = network.sent.copy()
    for link in [*network.links]:
        if lost in link:
            network.disconnect(*sorted(link))
    network.run(25.0)
    for site, table in network.tables.items():
        assert site == lost or lost not in table.origins()
    told = network.sent - before
    links = 2 * len(network.links)
    assert told["whole"] <= 2 * links
    assert told["changes"] + told["request"] <= 12 * links
    network.run(500.0)
    assert all(
        table.explain(lost) is None for site, table in network.tables.items() if site != lost
    )


@slow
@given(seed=seeds, size=st.integers(3, 8), counted=st.integers(0, 3))
def test_an_origin_that_forgot_its_number_is_reached_again(
    seed: int, size: int, counted: int
) -> None:
    network = build(seed, size, limits=AggregationLimits(best=size), watch=no_loops())
    network.run(60.0)
    for _ in range(counted):
        disturb(network, 8, restarts=False)
    network.run(60.0)
    for neighbour in network.restart("s01"):
        network.connect("s01", neighbour, 0.1)
    network.run(1000.0)
    assert_converged(network)


@pytest.mark.parametrize("size", [30, pytest.param(50, marks=pytest.mark.long)])
def test_convergence_of_a_larger_network_takes_few_messages(size: int) -> None:
    network = build(7, size, limits=AggregationLimits(best=size), degree=4.0)
    links = 2 * len(network.links)
    network.run(20.0)
    assert network.messages() <= 40 * links
    network.run(1200.0)
    assert_converged(network)
    before = network.messages()
    network.run(300.0)
    assert network.messages() - before == 10 * links, "what is quiet is only refreshed"
