"""How near the route search comes to the best route, and how long it takes.

Random networks (data, prices, speeds, links, targets) of a few sites are solved by the search and
by trying every sequence of visits; larger ones are only timed, from a question to a decision.

    python benchmarks/route.py [--json] [--instances 100]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.control.exhaustive import least_effort
from tests.control.instances import instance, small_problem

from daitn.control.route.engine import Mtrce
from daitn.control.route.problem import GRID
from daitn.control.route.search import best_plans, walk

QUANTA = (1_000.0, 4_000.0, 16_000.0)
DEPTH = 4


def gap(sites: int, grid: tuple[float, ...], instances: int) -> dict[str, float]:
    """Effort over the least effort of all routes of up to `DEPTH` visits, less one."""
    gaps, missed, spent_s = [], 0, 0.0
    for seed in range(instances):
        asked = small_problem(seed, sites, grid)
        began_s = time.perf_counter()
        plans = best_plans(asked)
        spent_s += time.perf_counter() - began_s
        least = least_effort(asked, DEPTH)
        if not np.isfinite(least):
            continue
        walked = walk(asked, plans)
        if plans and (walked.states.expected[0] >= asked.aims).all():
            gaps.append(float(walked.rank[0]) / least - 1.0)
        else:
            missed += 1
    return {
        "solvable": len(gaps) + missed,
        "missed": missed,
        "best_or_better_share": float(np.mean(np.array(gaps) < 1e-9)),
        "mean_gap": float(np.mean(gaps)),
        "gap_p90": float(np.quantile(gaps, 0.9)),
        "gap_max": float(np.max(gaps)),
        "search_ms": 1e3 * spent_s / instances,
    }


def seconds(sites: int, instances: int) -> dict[str, float]:
    """Seconds from a question to a decision on networks of `sites`."""
    taken = []
    for seed in range(instances):
        asked = instance(seed, sites)
        began_s = time.perf_counter()
        Mtrce().plan(asked, random.Random(0))
        taken.append(time.perf_counter() - began_s)
    return {"median_s": float(np.median(taken)), "max_s": float(np.max(taken))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--instances", type=int, default=100)
    arguments = parser.parse_args()
    count = arguments.instances
    results = {
        f"gap, 3 sites, {len(QUANTA)} amounts": gap(3, QUANTA, count),
        f"gap, 4 sites, {len(QUANTA)} amounts": gap(4, QUANTA, count),
        f"gap, 4 sites, {len(GRID)} amounts": gap(4, GRID, count // 4),
        "time, 9 sites": seconds(9, count // 4),
        "time, 1000 sites": seconds(1_000, 3),
    }
    if arguments.json:
        print(json.dumps(results))
        return
    for name, numbers in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
