"""What routes lose in a large network, in which few pairs of sites are measured, and whether the
estimate of each site's line wins it back.

For a model at a random site, the site of twenty to which it seems to move fastest, by the code that
plans routes: knowing nothing, the pairs of a fixed sample, and these with the lines that all sites'
samples tell. Printed is how many times as long as the fastest of the twenty it takes, as geometric
mean, on grounds of which only the first is the one that the estimate assumes.

`python -m benchmarks.lines [--json] [--sites 2000] [--choices 60] [--seeds 21 22 23]`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from daitn.control.route.transfers import between_s
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.objects.wire import to_json
from daitn.topology.network import LinkTable, fair_share
from daitn.topology.snapshot import Drrt

CANDIDATES = 20
SIZE_BYTES = 10**8
NOW_S = 1_000_000.0

Bps = Callable[[int, NDArray[np.int64]], NDArray[np.float64]]
"""Throughput between a site and others, in bytes per second."""


def grounds(rng: np.random.Generator, sites: int) -> dict[str, Bps]:
    """What bounds throughput in a network, by name."""
    lines = np.exp(rng.normal(np.log(5e6), 1.5, sites))
    places = rng.random((sites, 2))
    secret = int(rng.integers(1 << 30))

    def chance(site: int, others: NDArray[np.int64], sd: float) -> NDArray[np.float64]:
        pairs = [(min(site, other), max(site, other), secret) for other in others.tolist()]
        drawn: list[float] = [np.random.default_rng(pair).lognormal(0.0, sd) for pair in pairs]
        return np.array(drawn)

    def slower(site: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.minimum(lines[site], lines[others]))

    def near(site: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        away = np.hypot(*(places[site] - places[others]).T)
        return np.asarray(1e6 / (0.005 + 0.15 * away))  # A window per round trip.

    return {
        "the slower line": slower,
        "the slower line, and chance": lambda a, b: slower(a, b) * chance(a, b, 0.7),
        "distance": near,
        "distance and lines": lambda a, b: np.minimum(near(a, b), slower(a, b)),
        "chance alone": lambda a, b: 5e6 * chance(a, b, 1.5),
    }


def measured(site: int, others: NDArray[np.int64], bps: Bps) -> Iterator[LinkReading]:
    """What a site measured of others."""
    source = SiteId(f"s{site}")
    for other, value in zip(others.tolist(), bps(site, others).tolist(), strict=True):
        yield LinkReading(
            source=source,
            target=SiteId(f"s{other}"),
            throughput_bps=Reading(value, NOW_S - 30.0, source),
        )


def compare(bps: Bps, rng: np.random.Generator, sites: int, choices: int) -> dict[str, float]:
    """How many times as long as the best choice each way of choosing takes."""
    share = fair_share(sites)
    found: dict[str, list[float]] = {"nothing": [], "sample": [], "sample and lines": []}
    for _ in range(choices):
        holder, *others = (int(site) for site in rng.choice(sites, CANDIDATES + 1, replace=False))
        table = LinkTable()
        for site in (holder, *others):
            sample = rng.choice(sites, share, replace=False)
            for link in measured(site, sample[sample != site], bps):
                table.absorb(link, NOW_S)
        views = {
            "nothing": Drrt(1, NOW_S),
            "sample": Drrt(1, NOW_S, links=table.known),
            "sample and lines": Drrt(1, NOW_S, links=table.known, lines_bps=table.lines.bps),
        }
        takes_s = SIZE_BYTES / bps(holder, np.array(others))
        names = [SiteId(f"s{site}") for site in others]
        for name, view in views.items():
            expected_s = between_s(view, [SiteId(f"s{holder}")], names, SIZE_BYTES, NOW_S)[0]
            found[name].append(float(takes_s[int(expected_s.argmin())] / takes_s.min()))
    return {name: float(np.exp(np.log(times).mean())) for name, times in found.items()}


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sites", type=int, default=2000)
    parser.add_argument("--choices", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    asked = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    for seed in asked.seeds:
        rng = np.random.default_rng(seed)
        for name, bps in grounds(rng, asked.sites).items():
            ways = results.setdefault(name, {})
            for way, times in compare(bps, rng, asked.sites, asked.choices).items():
                ways.setdefault(way, []).append(round(times, 3))
    if asked.json:
        print(to_json(results))
        return
    for name, ways in results.items():
        told = ", ".join(f"{way} {min(v):.2f} to {max(v):.2f}" for way, v in ways.items())
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()
