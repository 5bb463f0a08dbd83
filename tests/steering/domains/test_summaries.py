"""What crosses a border tells of domains and not of their insides, is true, settles, and is free
of loops: on random networks with random faults."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.steering.routes.names import domain_of, site_of
from daitn.steering.routes.offers import wider
from daitn.steering.routes.table import AggregationLimits
from daitn.steering.wire.offers import Offer, Summary, Update, encode_summary
from tests.scenes.searches import cases

from ..routes.harness import Network, no_loops
from ..routes.test_routes import disturb, seeds, slow
from .build import assert_converged, build, crosses

GENEROUS = AggregationLimits(best=24)


def texts(value: object) -> Iterator[str]:
    """All text in a message."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def assert_tells_of_no_inside(summary: Summary) -> None:
    for text in texts(msgspec.msgpack.decode(encode_summary(summary))):
        assert not text.startswith("home:")
        rest = re.sub(r"^domain:[a-z]*@s\d\d/\d+$", "", text)
        assert not re.search(r"s\d\d", rest), text


def assert_true(network: Network, summary: Update) -> None:
    """Each offer is one that a site of that domain made at some time, and not sooner."""
    for entry in summary.routes:
        domain = domain_of(entry.origin)
        for offer in entry.offers or () if domain is not None else ():
            assert any(
                _same(offer, made) and offer.serve_s >= made.serve_s
                for site, offers in network.ever.items()
                if network.domains[site] == domain
                for made in offers
            ), f"{offer} of {entry.origin}"


def _same(told: Offer, made: Offer) -> bool:
    as_told = msgspec.structs.replace(told, key="", serve_s=0.0)
    as_made = msgspec.structs.replace(made, key="", serve_s=0.0)
    return as_told == as_made and told.key in (made.key, *wider(made.key))


def watched(network: Network) -> Network:
    def observed(site: str, to: str, summary: Summary) -> None:
        if crosses(network, site, to):
            assert_tells_of_no_inside(summary)
        if isinstance(summary, Update):
            assert_true(network, summary)

    network.observed = observed
    return network


@settings(slow, max_examples=cases(8))
@given(seed=seeds, size=st.integers(2, 9), times=st.integers(0, 30))
def test_nothing_of_an_inside_is_told_and_all_is_found_by_the_shortest_way(
    seed: int, size: int, times: int
) -> None:
    network = watched(build(seed, size, limits=GENEROUS, watch=no_loops()))
    disturb(network, times)
    network.run(1000.0)
    assert_converged(network)


@settings(slow, max_examples=cases(5))
@given(seed=seeds, size=st.integers(6, 12))
def test_it_is_little_and_settles(seed: int, size: int) -> None:
    limits = AggregationLimits(best=2, most_keys=6)
    network = watched(build(seed, size, limits=limits, watch=no_loops()))
    disturb(network, 12)
    network.run(900.0)
    for site, table in network.tables.items():
        by_border: dict[str, int] = {}
        for origin in table.origins():
            if domain_of(origin) is not None:
                border = site_of(origin)
                by_border[border] = by_border.get(border, 0) + 1
                assert len(table.offered(origin)) <= limits.most_keys
        assert all(count <= limits.best for count in by_border.values()), f"at {site}"
    before = network.sent["changes"]
    network.run(120.0)
    assert network.sent["changes"] == before


@settings(slow, max_examples=cases(8))
@given(seed=seeds, size=st.integers(2, 9), times=st.integers(1, 20))
def test_sites_change_their_domains_and_all_is_found_again(
    seed: int, size: int, times: int
) -> None:
    network = build(seed, size, limits=GENEROUS, watch=no_loops())
    rng = network.rng
    for _ in range(times):
        network.run(rng.choice((0.0, 0.1, 1.0, 60.0)) * rng.random())
        network.switch(rng.choice(sorted(network.tables)), rng.choice(("west", "east", "")))
        disturb(network, rng.randrange(2))
    network.run(1000.0)
    assert_converged(network)
    # And as it was before.
    for site in network.tables:
        network.switch(site, "")
        network.run(rng.random())
    network.run(1000.0)
    assert_converged(network)
    assert all(set(table.origins()) <= network.tables.keys() for table in network.tables.values())
