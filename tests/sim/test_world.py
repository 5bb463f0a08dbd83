"""The simulator: nothing is lost or counted twice, and queues are those of queueing theory."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from daitn.control.queries.context import QueryContext, QueryPlan, QueryRefusal
from daitn.control.queries.engine import Qirce
from daitn.control.queries.retry_budget import LEAST_PER_S, SHARE, WINDOW_S
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryConstraints, QueryStatus
from daitn.objects.randomness import Rng
from daitn.sim.choosing import (
    Chooser,
    Chosen,
    LeastBusy,
    QirceChooser,
    RandomRow,
    RoundRobin,
    TwoChoices,
)
from daitn.sim.clock import Clock
from daitn.sim.faults import Dies, Slows
from daitn.sim.load import Arrival, Lengths, LoadPhase, QueryKind, QueryLoad, recorded
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network
from daitn.sim.query import Ended
from daitn.sim.world import World

GATE = SiteId("gate")
EAST, WEST = SiteId("east"), SiteId("west")
LENGTHS = Lengths(median=20.0, sigma=0.5, bounds=(64,), bounded_share=0.5)


def spec(slots: int = 2, per_token_s: float = 0.01, queue: int = 1000) -> DeploymentSpec:
    return DeploymentSpec(
        name="doctor",
        slots=slots,
        queue=queue,
        first_token_s=per_token_s,
        per_token_s=per_token_s,
        usd_per_1k_in=0.0,
        usd_per_1k_out=0.001,
        accuracy={"medicine": 0.9},
    )


def network(*sites: SiteId, **kinds: DeploymentSpec) -> Network:
    facilities = tuple(
        FacilitySpec(site=site, deployments=(kinds.get(site, spec()),)) for site in sites
    )
    rtt_s = {(GATE, site): 0.01 for site in sites} | {(GATE, GATE): 0.0}
    return Network(facilities=facilities, gateways=(GATE,), rtt_s=rtt_s)


def load(per_s: float, until_s: float = 60.0, lengths: Lengths = LENGTHS) -> QueryLoad:
    phase = LoadPhase(since_s=0.0, per_s={GATE: per_s}, topics={"medicine": 1.0})
    return QueryLoad(phases=(phase,), until_s=until_s, lengths=lengths)


def ran(
    net: Network, asked: QueryLoad, make: Callable[[World], Chooser], **options: object
) -> tuple[Ended, ...]:
    return World(net, make, **options).run(recorded(asked, 1))  # type: ignore[arg-type]


POLICIES: list[Callable[[World], Chooser]] = [
    lambda world: QirceChooser(),
    lambda world: RoundRobin(),
    lambda world: RandomRow(),
    lambda world: LeastBusy(reported=True),
    lambda world: TwoChoices(),
    lambda world: world.oracle(),
]


@pytest.mark.parametrize("make", POLICIES)
def test_every_query_ends_once_and_the_same_seed_gives_the_same(
    make: Callable[[World], Chooser],
) -> None:
    asked = load(8.0)
    ended = ran(network(EAST, WEST), asked, make)
    numbers = [end.arrival.number for end in ended]
    assert sorted(numbers) == [arrival.number for arrival in recorded(asked, 1)]
    assert ran(network(EAST, WEST), asked, make) == ended
    assert all(end.seconds > 0.01 for end in ended if end.status is QueryStatus.ANSWERED)


def test_the_clock_never_goes_back() -> None:
    clock, seen = Clock(), list[float]()
    rng = random.Random(1)
    for _ in range(200):
        clock.at(rng.random() * 10, lambda: seen.append(clock.now_s))
    clock.at(5.0, lambda: clock.after(1.0, lambda: seen.append(clock.now_s)))
    for _ in range(202):
        clock.step()
    assert seen == sorted(seen)


def test_waiting_is_that_of_a_queue_with_one_server() -> None:
    """M/D/1: answers of one length. Mean wait rho / (2 mu (1 - rho)), Pollaczek and Khinchine."""
    same = Lengths(median=20.0, sigma=0.0, bounds=(64,), bounded_share=1.0)
    one = network(EAST, east=spec(slots=1))
    asked = load(3.5, until_s=4000.0, lengths=same)
    asked = QueryLoad(phases=asked.phases, until_s=asked.until_s, lengths=same, luck_sigma=0.0)
    ended = ran(one, asked, lambda world: RandomRow())
    service_s, rho = 0.2, 3.5 * 0.2
    waits = np.array([end.seconds - service_s - 0.01 for end in ended])
    assert waits.mean() == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.1)
    assert math.isclose(waits.min(), 0.0, abs_tol=1e-6)


@pytest.mark.parametrize("until_s", [1000.0, pytest.param(3000.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("slots", [1, 4])
def test_waiting_is_that_of_erlang(slots: int, until_s: float) -> None:
    """M/M/c: mean wait by Erlang's formula C; three standard errors over ten runs."""
    per_s, each_s = 0.7 * slots, 1.0
    means = []
    for seed in range(10):
        rng = random.Random(seed)
        same = Lengths(median=1.0, sigma=0.0, bounds=(1,), bounded_share=1.0)
        arrivals = [
            msgspec.structs.replace(arrival, luck=rng.expovariate(1.0))
            for arrival in recorded(load(per_s, until_s=until_s, lengths=same), seed)
        ]
        one = network(EAST, east=spec(slots=slots, per_token_s=each_s, queue=10_000))
        ended = World(one, lambda world: RandomRow()).run(arrivals)
        means.append(np.mean([e.seconds - e.arrival.luck * each_s - 0.01 for e in ended]))
    error = np.std(means, ddof=1) / math.sqrt(len(means))
    assert np.mean(means) == pytest.approx(erlang_wait_s(per_s, each_s, slots), abs=3 * error)


def erlang_wait_s(per_s: float, each_s: float, slots: int) -> float:
    offered = per_s * each_s
    waits = offered**slots / math.factorial(slots) * slots / (slots - offered)
    serves = sum(offered**k / math.factorial(k) for k in range(slots))
    return waits / (serves + waits) * each_s / (slots - offered)


def test_a_query_that_several_gateways_lose_and_find_again_ends_once() -> None:
    faults = (
        Dies(at_s=10.0, site=EAST, until_s=12.0),
        Slows(at_s=20.0, site=WEST, times=10.0, until_s=30.0),
        Dies(at_s=40.0, site=WEST),
    )
    ended = ran(network(EAST, WEST), load(6.0), lambda world: QirceChooser(), faults=faults)
    assert len({e.arrival.number for e in ended}) == len(ended) == len(recorded(load(6.0), 1))
    assert any(e.attempts > 1 for e in ended)


def test_traffic_leaves_what_dies_and_nothing_is_lost() -> None:
    ended = ran(
        network(EAST, WEST),
        load(5.0),
        lambda world: QirceChooser(),
        faults=(Dies(at_s=20.0, site=EAST),),
    )
    assert {end.status for end in ended} == {QueryStatus.ANSWERED}
    late = [end for end in ended if end.arrival.at_s > 22.0]
    assert {end.deployment for end in late} == {"doctor@west"}


def test_traffic_leaves_what_becomes_slow() -> None:
    fault = Slows(at_s=20.0, site=EAST, times=10.0)
    ended = ran(network(EAST, WEST), load(4.0), lambda world: QirceChooser(), faults=(fault,))
    early = [end.deployment for end in ended if end.arrival.at_s < 20.0]
    late = [end.deployment for end in ended if end.arrival.at_s > 30.0]
    assert early.count("doctor@east") / len(early) > 0.3
    assert late.count("doctor@east") / len(late) < 0.2


def test_a_decision_is_the_same_when_it_is_made_again() -> None:
    heard: list[tuple[QueryContext, QueryPlan | QueryRefusal]] = []

    def make(world: World) -> Chooser:
        return QirceChooser(lambda context, plan: heard.append((context, plan)))

    ran(network(EAST, WEST), load(6.0, until_s=10.0), make)
    assert len(heard) > 30
    for number, (context, plan) in enumerate(heard):
        assert isinstance(plan, QueryPlan)
        assert Qirce().decide(context, random.Random(f"0:{number}")) == plan


class InTurn:
    """Always the same rows, dead or alive."""

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        return Chosen(tuple(range(len(context.snapshot.rows))))


def test_retries_stay_within_the_budget_of_live_gateways() -> None:
    faults = tuple(Dies(at_s=0.0, site=site) for site in (EAST, WEST))
    asked = load(200.0, until_s=4.0)
    ended = ran(network(EAST, WEST), asked, lambda world: InTurn(), faults=faults)
    retries = sum(end.attempts - 1 for end in ended)
    assert 0 <= retries - (LEAST_PER_S * WINDOW_S + SHARE * len(ended)) < 1
    assert {end.status for end in ended} == {QueryStatus.FAILED}


@pytest.mark.parametrize(
    ("constraints", "hedges", "most"),
    [
        (QueryConstraints(), True, 2),
        (QueryConstraints(hedge=False), False, 1),
        (QueryConstraints(attempts=1), False, 1),
    ],
)
def test_who_is_late_is_overtaken_where_that_is_wished(
    constraints: QueryConstraints, hedges: bool, most: int
) -> None:
    asked = load(4.0)
    asked = dataclasses.replace(asked, kinds=(QueryKind(share=1.0, constraints=constraints),))
    fault = Slows(at_s=20.0, site=EAST, times=10.0)
    ended = ran(network(EAST, WEST), asked, lambda world: QirceChooser(), faults=(fault,))
    assert any(end.hedged for end in ended) == hedges
    assert max(end.attempts for end in ended) == most


def test_routing_by_knowledge_beats_routing_blindly() -> None:
    uneven = network(EAST, WEST, west=spec(per_token_s=0.05))
    asked = load(9.0, until_s=120.0)
    p99 = {
        name: np.quantile([end.seconds for end in ran(uneven, asked, make)], 0.99)
        for name, make in (("qirce", POLICIES[0]), ("turns", POLICIES[1]), ("oracle", POLICIES[5]))
    }
    assert p99["qirce"] < p99["turns"]
    assert p99["qirce"] < 2.0 * p99["oracle"]
