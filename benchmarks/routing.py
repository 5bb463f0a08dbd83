"""How well queries are routed: the live decision code against others, over one recorded load.

Facilities ten times apart in speed, links a hundred times in delay, three gateways that do not tell
each other what they do, answers of lognormal length. Every policy gets the same arrivals. An oracle
knows each answer's length and every queue of this instant, and takes the earliest end.

    python -m benchmarks.routing [--json] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence

import numpy as np

from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryStatus
from daitn.sim.asking import Ended
from daitn.sim.choosing import Chooser, LeastBusy, QirceChooser, RandomRow, RoundRobin, TwoChoices
from daitn.sim.faults import Dies, Fault, Slows
from daitn.sim.load import Lengths, Load, Phase, recorded
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network
from daitn.sim.world import World

GATEWAYS = tuple(SiteId(name) for name in ("north", "south", "west"))
FACILITIES = 9
LENGTHS = Lengths(median=60.0, sigma=0.8, bounds=(64, 256, 512), guess=64, bounded_share=0.5)
LASTS_S = 120.0
WARM_S = 10.0
LATENCY_ALONE = {"accuracy": 0.0, "latency": 1.0, "cost": 0.0, "affinity": 0.0}
POLICIES: dict[str, Callable[[World], Chooser]] = {
    "qirce": lambda world: QirceChooser(),
    "round robin": lambda world: RoundRobin(),
    "random": lambda world: RandomRow(),
    "least busy, own": lambda world: LeastBusy(reported=False),
    "least busy, reported": lambda world: LeastBusy(reported=True),
    "two choices": lambda world: TwoChoices(),
    "oracle": lambda world: world.oracle(),
}


def network(seed: int) -> Network:
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
            usd_per_1k_out=0.001,
            accuracy={"medicine": 0.9},
        )
        facilities.append(FacilitySpec(site=site, deployments=(spec,)))
        for gateway in GATEWAYS:
            rtt_s[gateway, site] = 0.002 * 100 ** rng.random()
    for one in GATEWAYS:
        for other in GATEWAYS:
            rtt_s[one, other] = 0.0 if one == other else 0.03
    return Network(facilities=tuple(facilities), gateways=GATEWAYS, rtt_s=rtt_s)


def load(net: Network, utilisation: float) -> Load:
    """As many queries as keep the facilities busy to this share, were they shared out ideally."""
    mean = LENGTHS.median * np.exp(LENGTHS.sigma**2 / 2)
    rate = sum(spec.slots / spec.service_s(int(mean)) for _, spec in net.deployments)
    per_s = {gateway: utilisation * rate / len(GATEWAYS) for gateway in GATEWAYS}
    phase = Phase(since_s=0.0, per_s=per_s, topics={"medicine": 1.0})
    return Load(phases=(phase,), until_s=LASTS_S, lengths=LENGTHS)


def figures(ended: Sequence[Ended], since_s: float = WARM_S) -> dict[str, float]:
    counted = [e for e in ended if e.arrival.at_s >= since_s]
    answered = [e for e in counted if e.status is QueryStatus.ANSWERED]
    seconds = np.array([e.seconds for e in answered])
    return {
        "p50_s": float(np.quantile(seconds, 0.5)),
        "p99_s": float(np.quantile(seconds, 0.99)),
        "mean_s": float(seconds.mean()),
        "unanswered_share": 1.0 - len(answered) / len(counted),
    }


def compared(seeds: int, utilisation: float) -> dict[str, dict[str, float]]:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in POLICIES}
    for seed in range(seeds):
        net = network(seed)
        arrivals = recorded(load(net, utilisation), seed)
        for name, make in POLICIES.items():
            prefer = LATENCY_ALONE if name == "qirce" else None
            world = World(net, make, prefer=prefer, seed=seed)
            results[name].append(figures(world.run(arrivals)))
    means = {
        name: {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        for name, runs in results.items()
    }
    best = means["oracle"]
    for mean in means.values():
        for key in ("p50", "p99", "mean"):
            mean[f"{key}_to_oracle"] = mean[f"{key}_s"] / best[f"{key}_s"]
    return means


def faulty(seed: int, fault: Fault) -> dict[str, float]:
    """One facility, the fastest, dies or slows down in the middle."""
    net = network(seed)
    arrivals = recorded(load(net, 0.5), seed)
    world = World(net, POLICIES["qirce"], prefer=LATENCY_ALONE, faults=(fault,), seed=seed)
    return figures(world.run(arrivals))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    fastest = SiteId("mdf0")
    results = {
        **{f"utilisation {share}": compared(arguments.seeds, share) for share in (0.5, 0.7, 0.85)},
        "fastest dies": faulty(0, Dies(at_s=60.0, site=fastest)),
        "fastest ten times slower": faulty(0, Slows(at_s=60.0, site=fastest, times=10.0)),
    }
    print(json.dumps(results, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
