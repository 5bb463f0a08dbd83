"""How long a routing decision takes, how many observations are absorbed per second, and what
joining facilities cost a gateway.

python -m benchmarks.qirce [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

from daitn.control.queries.context import QueryContext, QueryPlan
from daitn.control.queries.engine import Qirce
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    Runtime,
)
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import Serving
from daitn.objects.queries import QueryConstraints, QueryIntent, Trust
from daitn.objects.readings import ServingReading
from daitn.tools.fabric.memory import MemoryFabric, MemoryNetwork
from daitn.tools.freed_arrays import keep_freed_arrays
from daitn.tools.membership import FileKeys, Membership
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.state import QrrtState

GATE = SiteId("gate")
WARM, DECISIONS = 200, 1000
"""Decisions before, and those whose median is told: the first ones are slower."""
PER_S = 100_000
"""Observations per second that are absorbed between decisions."""
JOINING, FEW = 2000, 200
"""Facilities that join one after the other, and after how many of them a join is compared."""
ABOUT = 50
"""Joins whose median is told."""


def node(number: int, deployments: int) -> NodeDescriptor:
    said = tuple(
        DeploymentDescriptor(
            name=f"m{n}",
            owner=OwnerId("o"),
            runtime=Runtime.OPENAI,
            apis=(Api.CHAT,),
            state=DeploymentState.READY,
            slots=4,
            price_usd_per_1k_out=0.001 * (1 + n % 7),
            claimed={"medicine": 0.5 + 0.004 * (n % 100), "medicine/neurology": 0.6},
        )
        for n in range(deployments)
    )
    return NodeDescriptor(
        site=SiteId(f"s{number:04d}"),
        owner=OwnerId("o"),
        roles=(Role.FACILITY,),
        jurisdiction="US",
        public_key="",
        started_at_s=0.0,
        version=1,
        software="",
        facility=FacilityDescriptor(
            endpoint="http://x", hosts=True, memory_bytes=1, deployments=said
        ),
    )


INTENTS = {
    "auto": QueryIntent(
        origin=GATE, owner="", api=Api.CHAT, model="auto", topic="medicine/neurology",
        tokens_in=100, tokens_out=100,
    ),
    "auto, wishes": QueryIntent(
        origin=GATE, owner="", api=Api.CHAT, model="auto", topic="medicine",
        tokens_in=100, tokens_out=100,
        constraints=QueryConstraints(
            min_accuracy=0.52, trust=Trust.CLAIMED, jurisdictions=("US",),
            max_cost_usd=1.0, deadline_s=100.0,
        ),
    ),
    "one model": QueryIntent(
        origin=GATE, owner="", api=Api.CHAT, model="m3", tokens_in=100, tokens_out=100
    ),
}  # fmt: skip


def measured(sites: int, deployments: int) -> dict[str, float]:
    state = QrrtState()
    for number in range(sites):
        described = node(number, deployments)
        state.described(described, 1.0)
        state.came(described.site, 1.0)
    snapshot = state.snapshot()
    rows = len(snapshot.rows)
    paths, nobody = paths_from(snapshot, GATE, 1.0), np.zeros(rows)
    rng, qirce = random.Random(1), Qirce()
    results: dict[str, float] = {"candidates": rows}
    for name, intent in INTENTS.items():
        context = QueryContext(intent, snapshot, paths, nobody, 2.0)
        assert isinstance(qirce.decide(context, rng), QueryPlan)
        times = [_us(qirce, context, rng) for _ in range(WARM + DECISIONS)]
        results[f"{name}: us"] = float(np.median(times[WARM:]))
    told = [_serving(row.site, row.name) for row in snapshot.rows[:: max(1, rows // 1000)]]
    began_s, absorbed = time.perf_counter(), 20_000
    for number in range(absorbed):
        state.absorb_serving(told[number % len(told)], 2.0)
    results["absorbed per s"] = absorbed / (time.perf_counter() - began_s)
    results |= _beside(state, told, qirce, rng)
    return results


def _beside(
    state: QrrtState, told: list[Serving], qirce: Qirce, rng: random.Random
) -> dict[str, float]:
    """A decision a millisecond, each on the newest snapshot, with what comes between them."""
    paths = paths_from(state.snapshot(), GATE, 1.0)
    nobody = np.zeros(len(state.snapshot().rows))
    spent = []
    for number in range(500):
        for offset in range(PER_S // 1000):
            state.absorb_serving(told[(number * 100 + offset) % len(told)], 2.0)
        began_s = time.perf_counter()
        context = QueryContext(INTENTS["auto"], state.snapshot(), paths, nobody, 2.0)
        qirce.decide(context, rng)
        spent.append(1e6 * (time.perf_counter() - began_s))
    return {
        "snapshot and decision between 100 observations: us": float(np.median(spent)),
        "the same, p99: us": float(np.quantile(spent, 0.99)),
    }


def joining(deployments: int, *, queries: bool) -> dict[str, float]:
    """Facilities join one by one, and say how they do; with a query after each, or without."""
    fabric = MemoryFabric(MemoryNetwork(), GATE)
    feed = QrrtFeed(fabric, Membership(fabric, FileKeys(Path("unwritten"))), GATE)
    load, rng, qirce = GatewayLoad(), random.Random(1), Qirce()
    spent_s = []
    for number in range(JOINING):
        joins = node(number, deployments)
        began_s = time.process_time()
        feed.described(joins)
        feed.came(joins.site)
        if queries:
            snapshot = feed.snapshot()
            paths, in_flight = feed.paths(snapshot), load.of(snapshot)
            qirce.decide(QueryContext(INTENTS["auto"], snapshot, paths, in_flight, 2.0), rng)
        spent_s.append(time.process_time() - began_s)
    few_s, many_s = (float(np.median(spent_s[n - ABOUT : n])) for n in (FEW, JOINING))
    return {
        f"{JOINING} facilities join: s": sum(spent_s),
        f"a join at {FEW}: us": 1e6 * few_s,
        f"a join at {JOINING}: us": 1e6 * many_s,
        f"a join at {JOINING} over one at {FEW}": many_s / few_s,
    }


def _us(qirce: Qirce, context: QueryContext, rng: random.Random) -> float:
    began_s = time.perf_counter()
    qirce.decide(context, rng)
    return 1e6 * (time.perf_counter() - began_s)


def _serving(site: SiteId, name: str) -> Serving:
    reading = ServingReading(
        deployment=name, in_flight=1, waiting=0, first_token_s=0.1, per_token_s=0.01
    )
    return Serving(site=site, at_s=1.0, memory_free_bytes=0, deployments=(reading,))


def main() -> None:
    keep_freed_arrays()  # As a gateway does.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    results = [measured(100, 10), measured(400, 250)]
    for deployments in (1, 10):
        for queries in (False, True):
            case = {"deployments of each": deployments, "a query after each join": queries}
            results.append(case | joining(deployments, queries=queries))
    print(json.dumps(results, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
