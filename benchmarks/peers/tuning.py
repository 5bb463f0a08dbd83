"""How the peers' local training is chosen: by the number of rounds that it needs in one process, on
seeds that are not reported.

    python -m benchmarks.peers.tuning --task digits

A round takes a peer seconds, whatever is done in it, while training on these tables takes
milliseconds. So the fewest rounds are the best that a peer can do.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.peers.programs.learners import Array, Learner
from benchmarks.peers.tasks import TASKS, Task, write_task

__all__ = ["averaged", "cyclic"]

_SEEDS = (101, 102, 103)
_MOST = 60
"""Rounds, or visits."""
_RATES = (1e-3, 3e-3, 1e-2)
_EPOCHS = (1.0, 2.0, 5.0, 10.0, 20.0)
_MU = (0.0, 0.001, 0.01, 0.1)


def averaged(task: Task, folder: Path, epochs: float, mu: float = 0.0) -> Iterator[float]:
    """Accuracy after each round of FedAvg, or of FedProx."""
    sites, judge = [Learner(folder, site) for site in task.sites], Learner(folder)
    weights = judge.fresh()
    shares = np.array([site.examples(1.0) for site in sites], np.float32)
    shares /= shares.sum()
    for number in itertools.count(1):
        made = [
            site.train(weights, epochs, _seed(task, number, place), mu)
            for place, site in enumerate(sites)
        ]
        weights = [np.tensordot(shares, np.stack(each), 1) for each in zip(*made, strict=True)]
        yield judge.accuracy(weights)


def cyclic(task: Task, folder: Path, epochs: float) -> Iterator[float]:
    """Accuracy after each visit of a ring."""
    sites, judge = [Learner(folder, site) for site in task.sites], Learner(folder)
    weights: list[Array] = judge.fresh()
    for number in itertools.count(1):
        place = (number - 1) % len(sites)
        weights = sites[place].train(weights, epochs, _seed(task, number, place))
        yield judge.accuracy(weights)


def _seed(task: Task, number: int, place: int) -> int:
    return 10_000 * task.seed + 100 * number + place


def _until(target: float, values: Iterator[float]) -> int:
    found = enumerate(itertools.islice(values, _MOST), start=1)
    return next((number for number, value in found if value >= target), _MOST + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="digits", help="the task")
    parser.add_argument("--rate", type=float, action="append", help="learning rates")
    parser.add_argument(
        "--epochs", type=float, action="append", help="epochs per round; may be repeated"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for rate in options.rate or _RATES:
            folders = [Path(scratch) / f"{rate:g}-{seed}" for seed in _SEEDS]
            cases = [
                (write_task(options.task, seed, folder, learning_rate=rate), folder)
                for seed, folder in zip(_SEEDS, folders, strict=True)
            ]
            for epochs in options.epochs or _EPOCHS:
                tried = {
                    f"mu {mu:g}": [
                        _until(task.target, averaged(task, folder, epochs, mu))
                        for task, folder in cases
                    ]
                    for mu in _MU
                }
                tried["visits in a ring"] = [
                    _until(task.target, cyclic(task, folder, epochs)) for task, folder in cases
                ]
                told = "; ".join(f"{what}: {fmean(it):.1f} {it}" for what, it in tried.items())
                print(f"rate {rate:g}, {epochs:g} epochs: {told}", flush=True)


if __name__ == "__main__":
    main()
