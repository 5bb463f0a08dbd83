"""How well AATS steers on real topologies, compared with a centralised engine and other policies.

The topologies are networks of operators and research institutions (the Internet Topology Zoo) and
routers of single operators as CAIDA saw them, both from TopoHub; delays are those of light in fibre
of that length. Some sites have facilities, which differ in slots, speed and fit. A hot topic and a
hot place move. At first nothing fails, then links and sites fail and recover. Every policy gets the
same arrivals, service times and failures; `daitn.sim.steered` documents what each knows. AATS and
the centralised engine run the live decision code.

Utilisation is that of the facilities that serve the hottest topics, with ideal load balancing. With
"time alone", queries ask for the minimum fit and then for the earliest answer, so mean times are
comparable. With the default weights every policy trades fit for time in its own way; this is
measured on fewer topologies. A query counts as lost if it was not answered although a path to a
capable site existed all the time.

Decisions were tuned on the seeds from 0 on (`--tuning`); those from 100 on are for reports.

    python -m benchmarks.aats_topologies [--json] [--seeds N] [--graphs ...] [--quick] [--tuning]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import rustworkx as rx
from rich.console import Console
from rich.table import Table

from daitn.sim.steered.autonomous import AutonomousRouting
from daitn.sim.steered.centre import Centralised
from daitn.sim.steered.graph import Graph
from daitn.sim.steered.measures import Run, after_failures, figures, in_steady_state
from daitn.sim.steered.plain import PlainNetwork, Router
from daitn.sim.steered.routers import Flooding, NearestRouter, Omniscient, RandomWalk
from daitn.sim.steered.scenario import Scenario, Times
from daitn.tools.real_topologies import RealLink, RealNode, from_topohub

GRAPHS = (
    "topozoo/Geant2012",
    "caida/2024-08/12741",
    "topozoo/Bellcanada",
    "topozoo/Uninett2010",
    "caida/2024-08/12479",
)
"""Of 37, 58, 48, 74 and 131 sites."""
FEWER = 2
"""Of them, for the default weights."""
UTILISATIONS = (0.5, 0.8)
TIME_ALONE = {"accuracy": 0.0, "latency": 1.0, "cost": 0.0}
PROFILES: Mapping[str, Mapping[str, float]] = {"time alone": TIME_ALONE, "default weights": {}}
QUICK = Times(rest_s=3.0, warm_s=6.0, steady_s=9.0, failures=2, failure_every_s=6.0, drain_s=20.0)
LEAST_S = 0.0001
"""Of a link, one way: places of one town lie at one point of the map."""
TUNING, REPORTED = 0, 100
"""The first seeds of either kind."""

Policy = Callable[[Scenario], Run]
Phases = dict[str, dict[str, float]]


def plain(make: Callable[[PlainNetwork], Router]) -> Policy:
    return lambda scenario: PlainNetwork(scenario, make).run()


ALONE, ADVISED = "AATS", "AATS, advised"
AATS: Mapping[str, Policy] = {
    ALONE: lambda scenario: AutonomousRouting(scenario).run(),
    ADVISED: lambda scenario: AutonomousRouting(scenario, advised=True).run(),
}
CENTRALISED: Mapping[str, Policy] = {
    "asked, 1 s": plain(lambda network: Centralised(network, asked=True)),
    "asked, 0.1 s": plain(lambda network: Centralised(network, asked=True, reported_every_s=0.1)),
    "pushed, 1 s": plain(lambda network: Centralised(network, asked=False)),
}
"""The centre is asked for every query, or tells sources what it knows; facilities tell it so often
what waits there. Live ones tell it each second, and look each tenth of one whether it changed."""
OTHERS: Mapping[str, Policy] = {
    "nearest": plain(NearestRouter),
    "random walk": plain(RandomWalk),
    "flooding": plain(Flooding),
}
ORACLE = "omniscient"
POLICIES = {**AATS, **CENTRALISED, **OTHERS, ORACLE: plain(Omniscient)}
SHOWN = {
    "delivered": ("delivered", "{:.4f}"),
    "in time": ("in_time", "{:.3f}"),
    "lost": ("lost", "{:.0f}"),
    "mean s": ("mean_s", "{:.3f}"),
    "p99 s": ("p99_s", "{:.2f}"),
    "stretch": ("stretch", "{:.2f}"),
    "to centre": ("to_centralised", "{:.2f}"),
    "worst": ("worst_to_centralised", "{:.2f}"),
    "fit": ("fit", "{:.3f}"),
    "hops": ("hops", "{:.1f}"),
    "served": ("served_per_query", "{:.2f}"),
    "carried": ("carried_per_query", "{:.1f}"),
    "control/s": ("control_per_s", "{:.0f}"),
    "control B/s": ("control_bytes_per_s", "{:.0f}"),
}
"""Column to figure: what share was delivered, and by the deadline; mean time to the omniscient
one's and to the best centralised one's, in the mean and on the worst topology; of a query, how
often it was served and how many links it crossed."""


def graph(name: str) -> Graph:
    """Sites are named by their number."""
    real: rx.PyGraph[RealNode, RealLink] = from_topohub(name)
    return Graph(
        {
            frozenset((f"n{a:03}", f"n{b:03}")): max(LEAST_S, link.delay_s)
            for a, b, link in real.weighted_edge_list()
            if a != b
        }
    )


def measured(scenario: Scenario, run: Run) -> Phases:
    """In steady state and after failures, with what the whole run cost."""
    counts, seconds = run.counts, scenario.times.until_s - scenario.times.warm_s
    queries = sum(scenario.times.warm_s <= q.at_s for q in scenario.queries)
    cost = {
        "control_per_s": counts["control messages"] / seconds,
        "control_bytes_per_s": counts["control bytes"] / seconds,
        "served_per_query": counts["served"] / queries,
        "carried_per_query": counts["QUERY"] / queries,
    }
    return {
        "steady": figures(scenario, run, in_steady_state(scenario)) | cost,
        "after failures": figures(scenario, run, after_failures(scenario)) | cost,
    }


def compared(
    name: str, seeds: Sequence[int], utilisation: float, profile: str, times: Times
) -> dict[str, Phases]:
    """Policy to phase to figures, the mean of all seeds; `lost` is their sum."""
    if profile == "time alone":
        # Queries that wish weights take no advice.
        policies = {name: policy for name, policy in POLICIES.items() if name != ADVISED}
    else:  # What weighs nothing does the same at any weights.
        policies = {**AATS, **CENTRALISED, ORACLE: POLICIES[ORACLE]}
    scenarios = [
        Scenario.drawn(graph(name), seed, utilisation, times, PROFILES[profile]) for seed in seeds
    ]
    found = {
        policy: averaged([measured(scenario, run(scenario)) for scenario in scenarios])
        for policy, run in policies.items()
    }
    for phases in found.values():
        for phase, figure in phases.items():
            centre_s = min(found[policy][phase]["mean_s"] for policy in CENTRALISED)
            figure["stretch"] = figure["mean_s"] / found[ORACLE][phase]["mean_s"]
            figure["to_centralised"] = figure["mean_s"] / centre_s
    return found


def averaged(runs: Sequence[Phases]) -> Phases:
    return {
        phase: {
            key: float((np.sum if key == "lost" else np.mean)([run[phase][key] for run in runs]))
            for key in figure
        }
        for phase, figure in runs[0].items()
    }


def over_graphs(found: Mapping[str, Mapping[str, Phases]]) -> dict[str, Phases]:
    """Policy to phase to figures, the mean of all graphs and the worst ratio."""
    graphs = list(found.values())
    result = {policy: averaged([of[policy] for of in graphs]) for policy in graphs[0]}
    for policy, phases in result.items():
        for phase, figure in phases.items():
            ratios = [of[policy][phase]["to_centralised"] for of in graphs]
            figure["worst_to_centralised"] = max(ratios)
    return result


def show(situation: str, policies: Mapping[str, Phases]) -> None:
    for phase in ("steady", "after failures"):
        table = Table(title=f"{situation}, {phase}")
        table.add_column("policy")
        for name in SHOWN:
            table.add_column(name, justify="right")
        for policy, phases in policies.items():
            cells = [form.format(phases[phase][figure]) for figure, form in SHOWN.values()]
            table.add_row(policy, *cells)
        Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--graphs", nargs="+", default=GRAPHS, help="names of TopoHub graphs")
    parser.add_argument("--quick", action="store_true", help="one graph, less time")
    parser.add_argument("--tuning", action="store_true", help="use the tuning seeds")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=[*PROFILES])
    arguments = parser.parse_args()
    first = TUNING if arguments.tuning else REPORTED
    seeds = range(first, first + arguments.seeds)
    names = arguments.graphs[:1] if arguments.quick else arguments.graphs
    times = QUICK if arguments.quick else Times()
    results = {}
    for profile in arguments.profiles:
        for share in UTILISATIONS:
            situation = f"{profile}, utilisation {share}"
            some = names if profile == "time alone" else names[:FEWER]
            results[situation] = {
                name: compared(name, seeds, share, profile, times) for name in some
            }
            if not arguments.json:
                show(situation, over_graphs(results[situation]))
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
