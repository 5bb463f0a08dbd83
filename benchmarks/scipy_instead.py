"""Compare scipy with our Levenberg-Marquardt and Fisher's exact test.

    python -m benchmarks.scipy_instead [--worlds 2] [--families 6]

The benchmark runs simulated jobs, fits each posterior with both, and tests random tallies with
both. Times are CPU time, so other load on the machine does not count.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import hypergeom

from daitn.control import attesting
from daitn.control.attesting import Tally
from daitn.control.route import posterior
from daitn.sim.learning.episode import Episode, run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.planned import PlannedPolicy
from daitn.sim.learning.topologies import Topologies
from daitn.sim.learning.world import LearningWorld

_TALLIES, _FITS = 2_000, 120
OURS = posterior._mode


def scipys(*question: Any, method: str = "trf") -> Any:
    """`posterior._mode` by scipy: the same residuals, derivatives and relative tolerance."""
    _, _, _, mean, sd = question
    at: dict[bytes, Any] = {}

    def both(theta: Any) -> Any:
        if theta.tobytes() not in at:
            at.clear()
            at[theta.tobytes()] = posterior._linearised(theta, *question)
        return at[theta.tobytes()]

    found = least_squares(
        lambda theta: both(theta)[0],
        mean,
        lambda theta: both(theta)[1],
        method=method,
        x_scale=sd,
        ftol=1e-3,
    )
    residual, jacobian = both(found.x)
    return found.x, jacobian, residual


def led(world: LearningWorld, mode: Callable[..., Any]) -> Episode:
    """A job in a world, whose posteriors `mode` fits."""
    with mock.patch.object(posterior, "_mode", mode):
        return run(world, PlannedPolicy(), Topologies(world), time.process_time)


def fits(worlds: list[LearningWorld]) -> None:
    asked: list[tuple[Any, ...]] = []

    def remembered(*question: Any) -> Any:
        asked.append(question)
        return OURS(*question)

    pairs = [(led(world, remembered), led(world, scipys)) for world in worlds]
    reached = [(a.seconds, b.seconds) for a, b in pairs if a.reached and b.reached]
    ratio = np.exp(np.mean([np.log(b / a) for a, b in reached]))
    print(
        f"{len(pairs)} jobs: {sum(a.reached for a, _ in pairs)} reach with ours, "
        f"{sum(b.reached for _, b in pairs)} with scipy's, in {ratio:.3f} times as long"
    )
    for method in ("trf", "lm"):
        times, costs = [], []
        for question in asked[:: max(1, len(asked) // _FITS)]:
            began = time.process_time()
            *_, ours = OURS(*question)
            middle = time.process_time()
            *_, theirs = scipys(*question, method=method)
            times.append((time.process_time() - middle) / (middle - began))
            costs.append(float(ours @ ours / (theirs @ theirs)) - 1.0)
        print(
            f"{method}: {median(times):.2f} times as long a fit; ours ends above it by "
            f"{median(costs):.1e} (median), {np.quantile(costs, 0.95):.3f} (95 %)"
        )


def tests() -> None:
    rng = random.Random(1)
    tallies = []
    for _ in range(_TALLIES):
        before, now = rng.randint(20, 720), rng.randint(4, 96)
        tallies.append((Tally(rng.randint(0, before), before), Tally(rng.randint(0, now), now)))
    began = time.process_time()
    ours = [attesting._chance_of_less(before, now) for before, now in tallies]
    middle = time.process_time()
    theirs = [
        float(
            hypergeom.cdf(now.right, before.items + now.items, before.right + now.right, now.items)
        )
        for before, now in tallies
    ]
    ended = time.process_time()
    apart = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True) if b > 1e-30)
    print(
        f"Fisher: ours {(middle - began) / _TALLIES * 1e6:.0f} us, scipy's "
        f"{(ended - middle) / _TALLIES * 1e6:.0f} us; at most {apart:.0e} apart"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=2, help="worlds of each family")
    parser.add_argument(
        "--families", type=int, default=6, help="number of families, without `large`"
    )
    options = parser.parse_args()
    tests()
    chosen = [made for name, made in FAMILIES.items() if name != "large"][: options.families]
    fits([made(seed) for made in chosen for seed in range(options.worlds)])


if __name__ == "__main__":
    main()
