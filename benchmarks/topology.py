"""How fast the DRRT absorbs facts, makes snapshots and is cut for a model, first and again after a
twentieth of the sites reported their load and two links, on one core.

`python -m benchmarks.topology [--json] [--sites 1000 10000] [--observations 200000]`
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable
from functools import partial

import msgspec

from daitn.objects.descriptors import (
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    VerifierDescriptor,
)
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.intents import (
    DataWanted,
    ModelWanted,
    Objective,
    Quantity,
    Requirement,
    TrainingIntent,
)
from daitn.objects.model_needs import ModelNeeds
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.objects.wire import to_json
from daitn.topology.cuts import Cuts
from daitn.topology.snapshot import Drrt, MsDrrt
from daitn.topology.state import DrrtState, Fact

NOW_S = 1_000_000.0
LINKS_PER_SITE = 10
SNAPSHOTS = 10_000
REPEATS = 5
KEPT = 10
FIELDS = ("cardiology", "neurology", "oncology", "metabolic", "general")

INTENT = TrainingIntent(
    name="doctor",
    owner=OwnerId("university"),
    model=ModelWanted(recipe="causal-lm"),
    objectives=(
        Objective(name="broad", topic="medicine", at_least=0.5),
        Objective(name="expert", topic="medicine/neurology", at_least=0.5),
    ),
    data=DataWanted(topics=("medicine/general", "medicine/neurology", "medicine/oncology")),
    requirements=(
        Requirement(quantity=Quantity.JURISDICTION, one_of=("US", "CA")),
        Requirement(quantity=Quantity.SAMPLES, at_least=500),
        Requirement(quantity=Quantity.RTT_S, at_most=0.1),
    ),
)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One size of network. Processor time of one core."""

    sites: int
    links: int
    observations_per_s: float
    """Link and load readings absorbed, each of which changes the state."""
    observations_with_snapshots_per_s: float
    """The same with a snapshot after every 100th, of which the last ten are kept."""
    descriptors_per_s: float
    snapshot_s: float
    relevant_to_s: float
    """The best of five."""
    cut_again_s: float
    """The best of five, each after a twentieth of the sites told something."""
    options: int
    rejections: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--sites", type=int, nargs="+", default=[1000, 10_000], help="numbers of sites"
    )
    parser.add_argument("--observations", type=int, default=200_000, help="observations to absorb")
    asked = parser.parse_args()
    results = [measure(sites, asked.observations) for sites in asked.sites]
    if asked.json:
        print(to_json(results))
        return
    for result in results:
        for name, value in msgspec.structs.asdict(result).items():
            print(f"{name:36} {value:>14,.6g}")
        print()


def measure(sites: int, observations: int) -> Measured:
    rng = random.Random(sites)
    described = [site(index, rng) for index in range(sites)]
    links = [(a, b) for a in range(sites) for b in rng.sample(range(sites), LINKS_PER_SITE)]
    state = DrrtState()
    descriptors_s = absorbing_s(state, list(described), keep=False)
    absorb(state, [observed(a, b, NOW_S - 600, rng) for a, b in links])
    plain_s = absorbing_s(state, facts(links, observations, 500.0, rng), keep=False)
    snapshots_s = absorbing_s(state, facts(links, observations, 100.0, rng), keep=True)
    snapshot = state.snapshot(NOW_S)
    cuts = [timed(lambda: cut(snapshot)) for _ in range(REPEATS)]
    relevant = cut(snapshot)
    return Measured(
        sites=sites,
        links=sum(len(targets) for targets in snapshot.links.values()),
        observations_per_s=observations / plain_s,
        observations_with_snapshots_per_s=observations / snapshots_s,
        descriptors_per_s=sites / descriptors_s,
        snapshot_s=timed(lambda: take(state)) / SNAPSHOTS,
        relevant_to_s=min(cuts),
        cut_again_s=cut_again_s(state, sites, rng),
        options=len(relevant.options),
        rejections=len(relevant.rejections),
    )


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def absorbing_s(state: DrrtState, told: list[Fact], *, keep: bool) -> float:
    kept: list[Drrt] = []
    return timed(lambda: absorb(state, told, kept if keep else None))


def absorb(state: DrrtState, told: list[Fact], kept: list[Drrt] | None = None) -> None:
    for count, fact in enumerate(told):
        state.absorb(fact, NOW_S)
        if kept is not None and count % 100 == 0:
            kept.append(state.snapshot(NOW_S))
            del kept[:-KEPT]


def take(state: DrrtState) -> None:
    for _ in range(SNAPSHOTS):
        state.snapshot(NOW_S)


def cut_again_s(state: DrrtState, sites: int, rng: random.Random) -> float:
    cuts, took_s = Cuts(), []
    for turn in range(REPEATS + 1):
        for index in rng.sample(range(sites), sites // 20):
            links = [observed(index, other, NOW_S, rng) for other in rng.sample(range(sites), 2)]
            absorb(state, [loaded(index, NOW_S, rng), *links])
        snapshot = state.snapshot(NOW_S)
        spent_s = timed(partial(cut, snapshot, cuts))
        took_s += [spent_s] if turn else []  # The first one looks at everything.
    return min(took_s)


def cut(snapshot: Drrt, cuts: Cuts | None = None) -> MsDrrt:
    needs = ModelNeeds(
        data_schema="qa-pairs/1", test_schema="multiple-choice/1", memory_bytes=1_000_000_000
    )
    return (cuts or Cuts()).relevant_to(snapshot, INTENT, needs, now_s=NOW_S)


def facts(
    links: list[tuple[int, int]], count: int, oldest_s: float, rng: random.Random
) -> list[Fact]:
    """Nine link readings and one load reading in turn, each newer than the last."""
    told: list[Fact] = []
    for index in range(count):
        at_s = NOW_S - oldest_s + index * oldest_s / (2 * count)
        source, target = rng.choice(links)
        told.append(
            loaded(source, at_s, rng) if index % 10 == 0 else observed(source, target, at_s, rng)
        )
    return told


def observed(source: int, target: int, at_s: float, rng: random.Random) -> LinkReading:
    origin = named(source)
    return LinkReading(
        source=origin,
        target=named(target),
        rtt_s=Reading(rng.uniform(0.001, 0.3), at_s, origin),
        throughput_bps=Reading(rng.uniform(1e6, 1e9), at_s, origin),
    )


def loaded(index: int, at_s: float, rng: random.Random) -> LoadReading:
    origin = named(index)
    return LoadReading(
        site=origin,
        queue=Reading(float(rng.randrange(5)), at_s, origin),
        cpu_share=Reading(rng.random(), at_s, origin),
        disk_free_bytes=Reading(1e11, at_s, origin),
    )


def site(index: int, rng: random.Random) -> NodeDescriptor:
    name, field = named(index), rng.choice(FIELDS)
    place = rng.choice(("US", "CA", "DE"))
    verifier = None
    if index % 50 == 0:
        topic = "medicine" if index % 100 else "medicine/neurology"
        test = TestSetDescriptor(
            topic=topic,
            test_schema="multiple-choice/1",
            metrics=("accuracy",),
            items=400,
            chance=0.25,
            labels={"treatment": 200, "symptoms": 200},
        )
        verifier = VerifierDescriptor(tests=(test,), recipes=("causal-lm",))
    return NodeDescriptor(
        site=name,
        owner=OwnerId(f"owner-{index % 20}"),
        roles=(Role.DATA, Role.COMPUTE),
        jurisdiction=place,
        public_key="",
        started_at_s=0.0,
        version=1,
        software="daitn",
        datasets=(
            DatasetDescriptor(
                name="questions",
                site=name,
                data_schema="qa-pairs/1",
                modality="text",
                topics=(f"medicine/{field}",),
                samples=rng.randrange(5000),
                labels={"treatment": 100, "symptoms": 50},
                quality=rng.random(),
                fresh_at_s=NOW_S - rng.uniform(0, 1e5),
                jurisdiction=place,
                policy=DataPolicy(recipes=("causal-lm",)),
            ),
        ),
        compute=ComputeDescriptor(
            device="cpu", memory_bytes=8_000_000_000, speed_flops=5e10, recipes=("causal-lm",)
        ),
        verifier=verifier,
    )


def named(index: int) -> SiteId:
    return SiteId(f"site-{index}")


if __name__ == "__main__":
    main()
