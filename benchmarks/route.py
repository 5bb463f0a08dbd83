"""How close the route search comes to the best route, and how long a decision takes.

Random networks (data, prices, speeds, links, targets) of a few sites are solved by the search and
by trying every sequence of up to three visits under the same draws; larger ones are only timed,
from a question to a decision. The goals are 50 ms at 9 sites and 500 ms at 1,000, on a quiet
machine.

    python -m benchmarks.route [--json] [--instances 100] [--large 10] [--profile [--sites 9]]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from tests.control.exhaustive import best_of_all
from tests.control.instances import instance

from daitn.control.route.engine import Mtrce
from daitn.control.route.obvious_plans import amounts
from daitn.control.route.question import RouteQuestion
from daitn.control.route.search import best_plans
from daitn.control.route.task import route_task

_DEPTH = 3
_LARGE = (1_000, 2_000)
_FEWEST = 4


def gap(sites: int, instances: int, looks: int) -> dict[str, float]:
    """Effort over the least effort of all plans of up to `_DEPTH` visits, less one; below 0 where
    the search, which looks further, finds a better one."""
    gaps, missed, spent_s = [], 0, 0.0
    for seed in range(instances):
        asked = route_task(instance(seed, sites), Mtrce().weights)
        began_s = time.perf_counter()
        outcome = best_plans(asked, looks)
        spent_s += time.perf_counter() - began_s
        stops = [(k, n) for k in range(sites) for n in amounts(asked, k)[1:6:2]]
        least, reached = best_of_all(asked, stops, _DEPTH)
        missed += int(reached and not (outcome.visits > 0).any())
        gaps.append(float(outcome.effort.min()) / least - 1.0)
    return {
        "missed": missed,
        "best_or_better_share": float(np.mean(np.array(gaps) < 1e-9)),
        "mean_above": float(np.mean(np.maximum(gaps, 0.0))),
        "mean_gap": float(np.mean(gaps)),
        "gap_p90": float(np.quantile(gaps, 0.9)),
        "gap_max": float(np.max(gaps)),
        "search_ms": 1e3 * spent_s / instances,
    }


def seconds(questions: list[RouteQuestion]) -> dict[str, float]:
    """Milliseconds from a question to a decision: wall clock, and of this process alone."""
    wall_s, own_s = [], []
    for asked in questions:
        began_s, began_own_s = time.perf_counter(), time.process_time()
        Mtrce().plan(asked)
        wall_s.append(time.perf_counter() - began_s)
        own_s.append(time.process_time() - began_own_s)
    return {
        f"{name}_{what}_ms": 1e3 * float(of(taken))
        for what, taken in (("wall", wall_s), ("cpu", own_s))
        for name, of in (("median", np.median), ("p99", _p99))
    }


def _seconds_at(sites: int, decisions: int) -> dict[str, float]:
    return seconds([instance(seed, sites) for seed in range(decisions)])


def _p99(taken: list[float]) -> float:
    return float(np.quantile(taken, 0.99))


def profile(asked: RouteQuestion) -> None:
    """Print where the time of one decision goes."""
    Mtrce().plan(asked)
    profiler = cProfile.Profile()
    profiler.runcall(Mtrce().plan, asked)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument(
        "--instances", type=int, default=100, help="networks that are also solved exhaustively"
    )
    parser.add_argument("--large", type=int, default=10, help="decisions at 1,000 sites and more")
    parser.add_argument("--profile", action="store_true", help="only profile a decision")
    parser.add_argument(
        "--sites", type=int, default=_LARGE[0], help="sites of the profiled decision"
    )
    arguments = parser.parse_args()
    if arguments.instances < _FEWEST:
        parser.error(f"--instances: at least {_FEWEST}, a quarter of which has four sites")
    if arguments.profile:
        profile(instance(0, arguments.sites))
        return
    count = arguments.instances
    looks = Mtrce().looks
    measures: dict[str, Callable[[], dict[str, float]]] = {
        f"gap, 2 sites, {looks} looks": lambda: gap(2, count, looks),
        f"gap, 3 sites, {looks} looks": lambda: gap(3, count, looks),
        "gap, 3 sites, 5000 looks": lambda: gap(3, count // 2, 5_000),
        f"gap, 4 sites, {looks} looks": lambda: gap(4, count // 4, looks),
        "time, 9 sites": lambda: seconds([instance(seed, 9) for seed in range(count)]),
    }
    for sites in _LARGE:
        measures[f"time, {sites} sites"] = partial(_seconds_at, sites, arguments.large)
    results = {}
    for name, measure in measures.items():
        results[name] = measure()
        if not arguments.json:
            numbers = ", ".join(f"{key} {value:.3g}" for key, value in results[name].items())
            print(f"{name}: {numbers}", flush=True)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
