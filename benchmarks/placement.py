"""How close the placement optimiser comes to the best placement, and how long it takes.

Random small networks are solved by the search and by trying every placement; a larger one, of 100
facilities and 50 models, is only timed.

    python -m benchmarks.placement [--json] [--instances 200]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from tests.control.placement.instances import least_cost, network, problem

from daitn.control.placement.optimiser import planned
from daitn.control.placement.problem import cost_of
from daitn.control.placement.search import improved


def gap(models: int, facilities: int, instances: int) -> dict[str, float]:
    """Cost over the least cost of all placements, less one."""
    gaps = []
    for seed in range(instances):
        asked = problem(seed, models, facilities)
        gaps.append(cost_of(asked, improved(asked)) / least_cost(asked) - 1.0)
    return {
        "best_share": float(np.mean(np.array(gaps) < 1e-6)),
        "mean_gap": float(np.mean(gaps)),
        "gap_max": float(np.max(gaps)),
    }


def seconds(models: int, facilities: int, instances: int) -> dict[str, float]:
    """Seconds from a question to a plan, and what it saves."""
    taken, left = [], []
    for seed in range(instances):
        asked = network(seed, models, facilities)
        began_s = time.perf_counter()
        view = planned(asked)
        taken.append(time.perf_counter() - began_s)
        left.append(view.cost_then / view.cost_now)
    return {
        "median_s": float(np.median(taken)),
        "max_s": float(np.max(taken)),
        "cost_left_share": float(np.median(left)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument(
        "--instances", type=int, default=200, help="networks that are also solved exhaustively"
    )
    arguments = parser.parse_args()
    results = {
        "gap, 2 models, 3 facilities": gap(2, 3, arguments.instances),
        "gap, 3 models, 4 facilities": gap(3, 4, arguments.instances // 20),
        "time, 50 models, 100 facilities": seconds(50, 100, 7),
    }
    if arguments.json:
        print(json.dumps(results))
        return
    for name, numbers in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
