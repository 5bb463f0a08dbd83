"""How well queries are routed: the live decision code and other policies, under the same load.

Facilities differ ten times in speed and four times in price, links a hundred times in delay; three
gateways do not exchange their decisions, and answers have lognormal lengths. Every policy gets the
same arrivals. The oracle knows each answer's length and the current state of every queue, and takes
the best choice for the current query: the earliest end if only latency counts, otherwise the best
by QIRCE's weights for the true end and cost. The caring oracle knows as much, and also weighs how
long a query makes others wait. The guessing oracle is a caring one that knows only what the gateway
knows about the current query: no routing with guessed lengths can be expected to do better. "qirce,
told lengths" is QIRCE that knows the lengths; "limits" takes the request's limit as the length, or
64, and "one mean" the mean of the gateway's answers.

Decisions were tuned on the seeds from 0 on (`--tuning`); those from 100 on are for reports.
`--guesses` compares only guesses, with these lengths and with recorded ones.

    python -m benchmarks.routing [--json] [--seeds 6] [--tuning] [--guesses]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np

from benchmarks.recorded_lengths import MEAN_TOKENS, recorded_queries
from daitn.control.queries.context import QueryContext
from daitn.control.queries.lengths import (
    UNKNOWN_TOKENS,
    AnswerLengths,
    Foreseen,
    LengthModel,
    Moments,
)
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, QueryStatus
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
from daitn.sim.faults import Dies, Fault, Slows
from daitn.sim.load import Arrival, Lengths, LoadPhase, QueryLoad, recorded
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network
from daitn.sim.query import Ended
from daitn.sim.world import World

GATEWAYS = tuple(SiteId(name) for name in ("north", "south", "west"))
FACILITIES = 9
TUNING, REPORTED = 0, 100
"""The first seeds of either kind."""
TOPICS = ("medicine", "law", "cooking")
GOOD, POOR = 0.9, 0.75
"""Accuracy of a third of the facilities on each topic, where the hot topic moves, and of others."""
HOT = 0.8
"""Share of the hot topic; it lasts a third of the time."""
LENGTHS = Lengths(median=60.0, sigma=0.8, bounds=(64, 256, 512), bounded_share=0.5)
LASTS_S = 120.0
WARM_S = 10.0
FAULT_AT_S, BACK_AT_S = 60.0, 90.0
STEP_S = 0.5
LATENCY_ALONE = {"accuracy": 0.0, "latency": 1.0, "cost": 0.0, "affinity": 0.0}
Queries = tuple[Arrival, ...]
PROFILES = {"latency alone": LATENCY_ALONE, "default weights": {}}


class ToldLengths:
    """QIRCE, told the length of each answer."""

    def __init__(self) -> None:
        self._qirce = QirceChooser()

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        intent = msgspec.structs.replace(
            context.intent, tokens_expected=arrival.tokens_out, tokens_timed=arrival.tokens_out
        )
        return self._qirce.choose(replace(context, intent=intent), arrival, rng)


class Limits:
    """Answers are as long as requests allow; those ahead as the mean of all."""

    def __init__(self) -> None:
        self._all = Moments()

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        self._all.take(tokens)

    def foreseen(self, intent: QueryIntent) -> Foreseen:
        mean, _ = self._all.given(UNKNOWN_TOKENS, UNKNOWN_TOKENS**2)
        return self.own(float(intent.tokens_out), mean, intent)

    def own(self, limit: float, mean: float, intent: QueryIntent) -> Foreseen:
        return Foreseen(limit, limit, mean)


class OneMean(Limits):
    """Every answer is as long as the mean of all, within its limit."""

    def own(self, limit: float, mean: float, intent: QueryIntent) -> Foreseen:
        tokens = mean if intent.open_ended else min(mean, limit)
        return Foreseen(tokens, tokens, mean)


class KindMeans(AnswerLengths):
    """Time is reckoned by means of kinds."""

    def foreseen(self, intent: QueryIntent) -> Foreseen:
        seen = super().foreseen(intent)
        return seen._replace(root_mean_square=seen.mean)


GUESSES: dict[str, Callable[[], LengthModel]] = {
    "learnt": AnswerLengths,
    "means of kinds": KindMeans,
    "one mean": OneMean,
    "limits": Limits,
}
POLICIES: dict[str, Callable[[World], Chooser]] = {
    "qirce": lambda world: QirceChooser(),
    "qirce, told lengths": lambda world: ToldLengths(),
    "round robin": lambda world: RoundRobin(),
    "random": lambda world: RandomRow(),
    "least busy, own": lambda world: LeastBusy(reported=False),
    "least busy, reported": lambda world: LeastBusy(reported=True),
    "two choices": lambda world: TwoChoices(),
    "oracle": lambda world: world.oracle(),
    "caring oracle": lambda world: world.oracle(caring=True),
    "guessing oracle": lambda world: world.oracle(caring=True, guessing=True),
}


def network(seed: int, *, specialised: bool = False) -> Network:
    """`specialised`: whether each facility is good at one topic only."""
    rng = random.Random(seed)
    facilities, rtt_s = [], {}
    for number in range(FACILITIES):
        site = SiteId(f"mdf{number}")
        slower = 10 ** (number / (FACILITIES - 1))
        spec = DeploymentSpec(
            name="doctor",
            slots=4,
            queue=64,
            first_token_s=0.02 * slower,
            per_token_s=0.002 * slower,
            usd_per_1k_in=0.0,
            usd_per_1k_out=0.001 * 4 ** rng.random(),
            accuracy={
                topic: GOOD if not specialised or number % len(TOPICS) == at else POOR
                for at, topic in enumerate(TOPICS)
            },
        )
        facilities.append(FacilitySpec(site=site, deployments=(spec,)))
        for gateway in GATEWAYS:
            rtt_s[gateway, site] = 0.002 * 100 ** rng.random()
    for one in GATEWAYS:
        for other in GATEWAYS:
            rtt_s[one, other] = 0.0 if one == other else 0.03
    return Network(facilities=tuple(facilities), gateways=GATEWAYS, rtt_s=rtt_s)


def capacity(net: Network, tokens: float) -> float:
    """Queries per second that all can answer together, with answers of so many tokens."""
    return sum(spec.slots / spec.service_s(int(tokens)) for _, spec in net.deployments)


def load(net: Network, utilisation: float, *, moving: bool = False) -> QueryLoad:
    """As many queries as keep the facilities busy to this share, were they shared out ideally.
    `moving`: whether most are on one topic, which changes twice."""
    mean = LENGTHS.median * np.exp(LENGTHS.sigma**2 / 2)
    per_s = {gateway: utilisation * capacity(net, mean) / len(GATEWAYS) for gateway in GATEWAYS}
    hot = TOPICS if moving else TOPICS[:1]
    phases = tuple(
        LoadPhase(
            since_s=at * LASTS_S / len(hot),
            per_s=per_s,
            topics={t: HOT if t == topic else (1 - HOT) / (len(TOPICS) - 1) for t in TOPICS}
            if moving
            else {topic: 1.0},
        )
        for at, topic in enumerate(hot)
    )
    return QueryLoad(phases=phases, until_s=LASTS_S, lengths=LENGTHS)


def figures(
    ended: Sequence[Ended], specs: Mapping[str, DeploymentSpec], since_s: float = WARM_S
) -> dict[str, float]:
    counted = [e for e in ended if e.arrival.at_s >= since_s]
    answered = [e for e in counted if e.status is QueryStatus.ANSWERED]
    seconds = np.array([e.seconds for e in answered])
    costs = [
        specs[e.deployment].cost_usd(e.arrival.tokens_in, e.arrival.tokens_out) for e in answered
    ]
    return {
        "p50_s": float(np.quantile(seconds, 0.5)),
        "p99_s": float(np.quantile(seconds, 0.99)),
        "mean_s": float(seconds.mean()),
        "first_token_p99_s": float(np.quantile([e.first_token_s for e in answered], 0.99)),
        "cost_usd": float(np.mean(costs)),
        "accuracy": float(
            np.mean([specs[e.deployment].accuracy[e.arrival.topic] for e in answered])
        ),
        "hedged_share": sum(e.hedged for e in counted) / len(counted),
        "shed_share": sum(e.status is QueryStatus.SHED for e in counted) / len(counted),
        "lost": sum(e.status is QueryStatus.FAILED for e in counted),
    }


def compared(
    seeds: Sequence[int], utilisation: float, prefer: Mapping[str, float], *, moving: bool = False
) -> dict[str, dict[str, float]]:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in POLICIES}
    for seed in seeds:
        net = network(seed, specialised=moving)
        arrivals = recorded(load(net, utilisation, moving=moving), seed)
        for name, make in POLICIES.items():
            world = World(net, make, prefer=prefer, seed=seed)
            results[name].append(figures(world.run(arrivals), specs_of(net)))
    means = {
        name: {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        for name, runs in results.items()
    }
    best = means["oracle"]
    for mean in means.values():
        for key in ("p50_s", "p99_s", "mean_s", "first_token_p99_s", "cost_usd"):
            mean[f"{key}_to_oracle"] = mean[key] / best[key]
    return means


def guessed(
    seeds: Sequence[int], utilisation: float, queries: Callable[[Network, float, int], Queries]
) -> dict[str, dict[str, float]]:
    """QIRCE by each guess, over the oracle by what is learnt, where latency alone counts."""
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        net = network(seed)
        arrivals = queries(net, utilisation, seed)
        tried: list[tuple[str, str, Callable[[], LengthModel]]]
        tried = [("oracle", "guessing oracle", AnswerLengths)]
        tried += [(name, "qirce", guess) for name, guess in GUESSES.items()]
        for name, policy, guess in tried:
            make = POLICIES[policy]
            world = World(net, make, prefer=LATENCY_ALONE, seed=seed, lengths=guess)
            runs.setdefault(name, []).append(figures(world.run(arrivals), specs_of(net)))
    means = {
        name: {key: float(np.mean([run[key] for run in each])) for key in ("p99_s", "mean_s")}
        for name, each in runs.items()
    }
    best = means["oracle"]
    return {
        name: {**mean, **{f"{key}_to_oracle": mean[key] / best[key] for key in best}}
        for name, mean in means.items()
    }


def drawn_lengths(net: Network, utilisation: float, seed: int) -> Queries:
    return recorded(load(net, utilisation), seed)


def recorded_lengths(net: Network, utilisation: float, seed: int, limited: float = 0.0) -> Queries:
    per_s = utilisation * capacity(net, MEAN_TOKENS)
    return recorded_queries(per_s, LASTS_S, GATEWAYS, TOPICS[0], seed, limited)


def faulty(seed: int, fault: Fault, site: SiteId) -> dict[str, float]:
    """A facility dies or slows down in the middle, and is well again later."""
    net = network(seed)
    arrivals = recorded(load(net, 0.5), seed)
    world = World(net, POLICIES["qirce"], prefer=LATENCY_ALONE, faults=(fault,), seed=seed)
    ended = world.run(arrivals)
    usual = share_at(site, ended, WARM_S, FAULT_AT_S)
    return {
        **figures(ended, specs_of(net), FAULT_AT_S),
        "share_before": usual,
        "share_during": share_at(site, ended, FAULT_AT_S + 5.0, BACK_AT_S),
        "share_after": share_at(site, ended, BACK_AT_S + 5.0, LASTS_S),
        "halved_within_s": within_s(site, ended, FAULT_AT_S, lambda share: share < usual / 2),
        "half_again_within_s": within_s(site, ended, BACK_AT_S, lambda share: share >= usual / 2),
        "asked_again": sum(e.attempts > 1 and not e.hedged for e in ended),
    }


def within_s(
    site: SiteId, ended: Sequence[Ended], since_s: float, holds: Callable[[float], bool]
) -> float:
    """End of the first half of a second from which on the site's share is as `holds` says."""
    steps = np.arange(since_s, since_s + BACK_AT_S - FAULT_AT_S, STEP_S)
    fits = (float(at_s) for at_s in steps if holds(share_at(site, ended, at_s, at_s + STEP_S)))
    return next(fits, float("inf")) + STEP_S - since_s


def share_at(site: SiteId, ended: Sequence[Ended], since_s: float, until_s: float) -> float:
    """Of the queries that came in this time, those that the site answered."""
    sites = [e.deployment.partition("@")[2] for e in ended if since_s <= e.arrival.at_s < until_s]
    return sites.count(site) / max(1, len(sites))


def specs_of(net: Network) -> dict[str, DeploymentSpec]:
    return {f"{spec.name}@{site}": spec for site, spec in net.deployments}


QUERIES: dict[str, Callable[[Network, float, int], Queries]] = {
    "drawn lengths": drawn_lengths,
    "recorded lengths": recorded_lengths,
    "recorded lengths, half with a limit": partial(recorded_lengths, limited=0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--seeds", type=int, default=6, help="number of seeds")
    parser.add_argument("--tuning", action="store_true", help="use the tuning seeds")
    parser.add_argument("--guesses", action="store_true", help="compare guesses of lengths only")
    arguments = parser.parse_args()
    first = TUNING if arguments.tuning else REPORTED
    seeds = range(first, first + arguments.seeds)
    if arguments.guesses:
        for name, queries in QUERIES.items():
            for share in (0.3, 0.5, 0.7):
                told = {f"{name}, utilisation {share}": guessed(seeds, share, queries)}
                print(json.dumps(told, indent=None if arguments.json else 1), flush=True)
        return
    fastest = SiteId("mdf0")
    dies = Dies(at_s=FAULT_AT_S, site=fastest, until_s=BACK_AT_S)
    slows = Slows(at_s=FAULT_AT_S, site=fastest, times=10.0, until_s=BACK_AT_S)
    results = {
        **{
            f"{name}, utilisation {share}": compared(seeds, share, prefer)
            for name, prefer in PROFILES.items()
            for share in (0.5, 0.7, 0.85)
        },
        "hot topic moves, utilisation 0.5": compared(seeds, 0.5, {}, moving=True),
        "fastest dies": faulty(first, dies, fastest),
        "fastest ten times slower": faulty(first, slows, fastest),
    }
    print(json.dumps(results, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
