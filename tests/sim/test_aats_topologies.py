"""The same scenario under every policy: what sets out is accounted for, and AATS loses nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from daitn.sim.steered.autonomous import AutonomousRouting, latency_weight
from daitn.sim.steered.centre import Centralised
from daitn.sim.steered.graph import Graph, Link
from daitn.sim.steered.measures import Run, after_failures, figures, in_steady_state
from daitn.sim.steered.plain import PlainNetwork, Router
from daitn.sim.steered.routers import Flooding, NearestRouter, Omniscient, RandomWalk
from daitn.sim.steered.scenario import Scenario, Times
from daitn.steering.scoring import STEERING
from tests.scenes.searches import cases

SHORT = Times(
    rest_s=2.0, warm_s=3.0, steady_s=4.0, failures=4, failure_every_s=3.0, failure_lasts_s=2.0,
    first_s=1.0, drain_s=15.0,
)  # fmt: skip
TIME_ALONE = {"accuracy": 0.0, "latency": 1.0, "cost": 0.0}


def scenario(seed: int = 0, utilisation: float = 0.4) -> Scenario:
    """A ring of 14 sites with chords."""
    rng = random.Random(seed)
    sites = [f"s{number:02}" for number in range(14)]
    links: dict[Link, float] = {
        frozenset(pair): rng.uniform(0.001, 0.02) for pair in itertools.pairwise([*sites, sites[0]])
    }
    for _ in range(6):
        links[frozenset(rng.sample(sites, 2))] = rng.uniform(0.001, 0.02)
    return Scenario.drawn(Graph(links), seed, utilisation, SHORT, TIME_ALONE)


def plain(make: Callable[[PlainNetwork], Router]) -> Callable[[Scenario], Run]:
    return lambda drawn: PlainNetwork(drawn, make).run()


POLICIES: dict[str, Callable[[Scenario], Run]] = {
    "aats": lambda drawn: AutonomousRouting(drawn).run(),
    "advised": lambda drawn: AutonomousRouting(drawn, advised=True).run(),
    "asked": plain(lambda network: Centralised(network, asked=True)),
    "pushed": plain(lambda network: Centralised(network, asked=False)),
    "nearest": plain(NearestRouter),
    "random": plain(RandomWalk),
    "flooding": plain(Flooding),
    "omniscient": plain(Omniscient),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_sets_out_is_accounted_for(policy: str) -> None:
    drawn = scenario()
    run = POLICIES[policy](drawn)
    assert set(run.outcomes) <= {query.number for query in drawn.queries}
    for number, outcome in run.outcomes.items():
        query = drawn.queries[number]
        facility = drawn.facilities[outcome.site]
        assert facility.capable(query.topic)
        assert outcome.taken_s >= facility.serve_s * query.luck * 0.999
    told = figures(drawn, run, in_steady_state(drawn))
    assert told["queries"] > 50
    assert told["in_time"] <= told["delivered"] <= 1.0
    assert told["lost"] <= round(told["queries"] * (1.0 - told["delivered"]))
    # The load ends before the last answers do.
    assert run.counts["served"] >= 0.9 * sum(q.at_s >= SHORT.warm_s for q in drawn.queries)
    assert run.counts["control bytes"] >= run.counts["control messages"] > 0


@pytest.mark.parametrize("seed", range(cases(2)))
def test_aats_loses_nothing_and_tells_every_owner_once(seed: int) -> None:
    drawn = scenario(seed)
    aats = AutonomousRouting(drawn)
    run = aats.run()
    for phase in (in_steady_state(drawn), after_failures(drawn)):
        assert figures(drawn, run, phase)["lost"] == 0
    assert set(aats.returns.values()) == {1}


def test_aats_is_about_as_fast_as_who_knows_all_and_faster_than_the_nearest() -> None:
    drawn = scenario(1, utilisation=0.6)
    steady = in_steady_state(drawn)
    mean_s = {
        policy: figures(drawn, POLICIES[policy](drawn), steady)["mean_s"]
        for policy in ("aats", "nearest", "omniscient")
    }
    assert mean_s["omniscient"] <= mean_s["aats"] <= 1.4 * mean_s["omniscient"]
    assert mean_s["aats"] < mean_s["nearest"]


def test_what_is_not_encoded_goes_the_same_way() -> None:
    drawn = scenario()
    assert AutonomousRouting(drawn).run() == AutonomousRouting(drawn, coded=True).run()


def test_a_busy_network_is_advised_to_weigh_time() -> None:
    assert latency_weight(0.0) == STEERING.weights["latency"] < latency_weight(1.0)
