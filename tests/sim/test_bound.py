"""The oracles against the best that any plan without foresight's limits could do, on small loads.

Every assignment of all queries to facilities is tried. A facility serves in the order of arrival
there, and a query is sent when it comes, to one facility, as all routing does that asks but once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryConstraints
from daitn.sim.choosing import RandomRow
from daitn.sim.load import Arrival
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network
from daitn.sim.world import World

GATE = SiteId("gate")
QUERIES, FACILITIES = 7, 3
SOONEST = QueryConstraints(prefer={"accuracy": 0.0, "latency": 1.0, "cost": 0.0, "affinity": 0.0})


def instance(seed: int) -> tuple[Network, list[Arrival]]:
    """Facilities with one slot each, up to four times apart, and more queries than they like."""
    rng = random.Random(seed)
    facilities, rtt_s = [], {(GATE, GATE): 0.0}
    for number in range(FACILITIES):
        site, slower = SiteId(f"mdf{number}"), 2**number
        spec = DeploymentSpec(
            "doctor", 1, 64, 0.02 * slower, 0.002 * slower, 0.0, 0.0, {"medicine": 0.9}
        )
        facilities.append(FacilitySpec(site, (spec,)))
        rtt_s[GATE, site] = 0.002 * 30 ** rng.random()
    times = sorted(rng.uniform(0.1, 0.6) for _ in range(QUERIES))
    arrivals = [
        Arrival(
            number=number,
            at_s=at_s,
            gateway=GATE,
            topic="medicine",
            model="doctor",
            tokens_in=10,
            tokens_out=round(60 * 2 ** rng.gauss(0.0, 1.0)),
            limit=0,
            luck=1.0,
            constraints=SOONEST,
        )
        for number, at_s in enumerate(times)
    ]
    return Network(tuple(facilities), (GATE,), rtt_s), arrivals


def least_mean_s(net: Network, arrivals: Sequence[Arrival]) -> float:
    """Over all assignments."""
    ways = itertools.product(list(net.deployments), repeat=len(arrivals))
    return min(mean_s(net, arrivals, way) for way in ways)


def mean_s(
    net: Network, arrivals: Sequence[Arrival], way: Sequence[tuple[SiteId, DeploymentSpec]]
) -> float:
    """One facility's queries keep their order: the way there takes each of them as long."""
    free_s, total_s = dict.fromkeys(net.rtt_s, 0.0), 0.0
    for arrival, (site, spec) in zip(arrivals, way, strict=True):
        there, rtt_s = (GATE, site), net.rtt_s[GATE, site]
        begins_s = max(free_s[there], arrival.at_s + rtt_s / 2)
        free_s[there] = begins_s + spec.service_s(arrival.tokens_out)
        total_s += free_s[there] + rtt_s / 2 - arrival.at_s
    return total_s / len(arrivals)


@pytest.mark.parametrize("caring", [False, True])
def test_no_oracle_beats_the_best_plan_and_both_come_near(caring: bool) -> None:
    gaps = []
    for seed in range(20):
        net, arrivals = instance(seed)
        best_s = least_mean_s(net, arrivals)
        ended = World(net, lambda world: world.oracle(caring=caring)).run(arrivals)
        oracle_s = float(np.mean([each.seconds for each in ended]))
        blind = World(net, lambda world: RandomRow()).run(arrivals)
        assert best_s <= oracle_s + 1e-9
        assert best_s <= np.mean([each.seconds for each in blind]) + 1e-9
        gaps.append(oracle_s / best_s)
    print(caring, np.mean(gaps), max(gaps))
    assert np.mean(gaps) < 1.1
