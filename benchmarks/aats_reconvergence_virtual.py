"""The protocol's part of reconvergence, without the machine's: `python -m
benchmarks.aats_reconvergence_virtual`.

It uses the graph, the costs of links and the failures of `benchmarks.aats_reconvergence`, but runs
all forwarders in one process under virtual time, in which computing takes no time and a link takes
half its cost. What remains is the number of exchanges between forwarders, and their waiting times.
The results are the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence

import numpy as np

from benchmarks.aats_reconvergence_graph import Graph, Link, NextHops, random_graph
from benchmarks.aats_reconvergence_process import cost_of
from daitn.sim.forwarders import ForwarderNetwork

NODE_EVERY = 4
STEP_S = 0.005
WATCHED_S, REST_S = 5.0, 25.0
SOON_S, WHOLE_WITHIN_S = 0.3, 2.5


class Network:
    """Forwarders, linked as the graph says."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.network = ForwarderNetwork(detect_s=0.0)
        for site in graph.sites:
            self.network.add(site)
        for a, b in graph.links:
            self.network.connect(a, b, cost_of(a, b) / 2)
        self.network.run(REST_S)

    @property
    def summaries(self) -> int:
        return self.network.counts["summaries"]

    def whole(self, graph: Graph) -> bool:
        """Whether every site of the graph reaches every other by following next hops."""
        ways = NextHops(graph)
        for site in graph.sites:
            routes = self.network.sites[site].forwarder.routes
            for origin in graph.sites:
                if vias := routes.routes_to(origin):
                    ways.apply(("way", 0.0, site, origin, vias[0].neighbour))
        return not ways.missing()

    def fail(self, link: Link | None, site: str) -> dict[str, float | str]:
        """Let a link fail, or a site where that is None, see what happens, and mend it."""
        before, told_soon = self.summaries, 0
        if link is None:
            lost = self.network.crash(site)
            left = self.graph.without(site)
        else:
            self.network.disconnect(*link)
            left = self.graph.without_link(link)
        whole_s, now_s = 0.0, 0.0
        while now_s < WATCHED_S:
            self.network.run(STEP_S)
            now_s += STEP_S
            if now_s <= SOON_S:
                told_soon = self.summaries - before
            # Later, it may be the refresh of all that is known.
            if now_s < WHOLE_WITHIN_S and not self.whole(left):
                whole_s = now_s + STEP_S
        told = self.summaries - before
        if link is None:
            for other, delay_s in lost:
                self.network.connect(site, other, delay_s)
        else:
            self.network.connect(*link, cost_of(*link) / 2)
        self.network.run(REST_S)
        assert self.whole(self.graph)
        kind = "site" if link is None else "link"
        return {"kind": kind, "ms": 1000 * whole_s, "soon": told_soon, "summaries": told}


def measured(sites: int, failures: int, seed: int) -> list[dict[str, float | str]]:
    rng = random.Random(seed)
    graph = random_graph(sites, 2 * sites, rng)
    links = [link for link in graph.links if graph.without_link(link).connected()]
    nodes = [site for site in graph.sites if graph.without(site).connected()]
    network = Network(graph)
    found = []
    for number in range(failures):
        if number % NODE_EVERY == NODE_EVERY - 1:
            found.append(network.fail(None, rng.choice(nodes)))
        else:
            found.append(network.fail(rng.choice(links), ""))
    return found


def summed_up(found: Sequence[dict[str, float | str]]) -> dict[str, dict[str, float]]:
    report = {}
    for kind in ("link", "site", "all"):
        of = [one for one in found if kind in (one["kind"], "all")]
        if of:
            report[kind] = {
                "count": len(of),
                **{
                    f"{name}_{which}": round(float(np.percentile([one[name] for one in of], q)), 1)
                    for name in ("ms", "soon", "summaries")
                    for which, q in (("p50", 50), ("p99", 99))
                },
            }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aats_reconvergence_virtual")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--nodes", type=int, default=50, help="number of sites")
    parser.add_argument("--failures", type=int, default=40, help="number of failures")
    parser.add_argument("--seed", type=int, default=0, help="seed of graph and failures")
    told = parser.parse_args()
    found = summed_up(measured(told.nodes, told.failures, told.seed))
    report = {"sites": told.nodes, "links": 2 * told.nodes, "soon_s": SOON_S, **found}
    if told.json:
        print(json.dumps(report, indent=2))
    else:
        for name, value in report.items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
