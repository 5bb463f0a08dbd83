"""Several models that travel and are averaged where they meet, compared with a single one.

    python -m benchmarks.gossip [--classes 2] [--sites 10] [--walkers 1 --walkers 4] [--visits 120]
        [--rate 0.003] [--split 0 --split 1] [--weigh alone --weigh all] [--json]

scikit-learn's handwritten digits are divided over sites, each with records of some classes. A model
visits all sites in random orders, trains for one epoch at each, and is averaged with what another
left there last; the site keeps the result. Every walker makes one visit per unit of time, no two at
the same site. The best of them counts, measured after each unit. All together make `--visits`.
Sites are alike, and moving and merging take no time, which favours several models.

`--weigh all` weights each model by everything that it has learned, `alone` by what the other has
not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.algorithms import Run
from benchmarks.label_skew import CLASSES, digits_case
from benchmarks.worlds.recorder import Case, repeatable
from daitn.objects.merging import GOSSIP_RULE, LocalRule
from daitn.topology.arrays import Indices

TARGETS = (0.8, 0.85, 0.9, 0.93, 0.95)
_SEED = 7


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """How a job went."""

    walkers: int
    weigh: str
    split: int
    accuracy: tuple[float, ...]
    """Of the best model, after each unit of time."""
    examples: int
    reached: dict[str, int | None]
    """Target to units of time until it held."""


@dataclass(frozen=True)
class Model:
    """One that walks, and the examples of each visit behind it."""

    path: Path
    visits: dict[int, int] = field(default_factory=dict)


def split_digits(folder: Path, sites: int, classes: int, rate: float, split: int) -> Case:
    """The digits at sites with so many classes each."""

    def deal(labels: Indices) -> list[Indices]:
        rng, rows = np.random.default_rng(split), [list[int]() for _ in range(sites)]
        for label in range(len(CLASSES)):
            # Site k has the classes k * classes, ..., counted round.
            holds = [k for k in range(sites) if (label - k * classes) % len(CLASSES) < classes]
            dealt = rng.permutation(np.flatnonzero(labels == label))
            for site, part in zip(holds, np.array_split(dealt, max(1, len(holds))), strict=False):
                rows[site] += part.tolist()
        return [np.array(sorted(mine)) for mine in rows]

    return digits_case(f"gossip {classes}", folder, rate, deal)


def average(run: Run, one: Model, other: Model, weigh: str) -> Model:
    """Two that meet; the first as it is, if it has learned all that the other has."""
    mine, theirs = one.visits.keys() - other.visits.keys(), other.visits.keys() - one.visits.keys()
    if not mine or not theirs:
        return one
    if weigh == "all":
        mine, theirs = set(one.visits), set(other.visits)
    made = [
        (one.path, sum(one.visits[n] for n in mine)),
        (other.path, sum(other.visits[n] for n in theirs)),
    ]
    path = run.merge(one.path, made, GOSSIP_RULE, run.work / "moments")
    return Model(path, {**one.visits, **other.visits})


def course(of: Case, walkers: int, visits: int, split: int, weigh: str) -> Course:
    """A job of so many models."""
    rng = np.random.default_rng(100 + split)
    with tempfile.TemporaryDirectory() as work:
        run = Run(of, {"broad": 1.0}, Path(work), 1.0, LocalRule())
        models = [Model(run.begin())] * walkers
        left: dict[int, tuple[int, Model]] = {}
        to_visit: list[list[int]] = [[] for _ in range(walkers)]
        accuracy = []
        for unit in range(visits // walkers):
            taken = set[int]()
            for walker in range(walkers):
                site = _next_site(to_visit[walker], taken, len(of.sites), rng)
                taken.add(site)
                seed = _SEED + 1000 * unit + walker
                path, examples = run.visit(models[walker].path, site, seed)
                number = unit * walkers + walker
                made = Model(path, {**models[walker].visits, number: examples})
                by, there = left.get(site, (walker, made))
                models[walker] = made if by == walker else average(run, made, there, weigh)
                left[site] = walker, models[walker]
            test = of.tests[0].path
            found = [of.recipe.evaluate(m.path, run.config, test, "accuracy") for m in models]
            accuracy.append(round(max(one.value for one in found), 4))
        return Course(
            walkers=walkers,
            weigh=weigh,
            split=split,
            accuracy=tuple(accuracy),
            examples=run.examples,
            reached={str(target): _first(accuracy, target) for target in TARGETS},
        )


def _next_site(to_visit: list[int], taken: set[int], sites: int, rng: np.random.Generator) -> int:
    """Of the pass over all sites that the model is in, the next one that is free."""
    free = [site for site in to_visit if site not in taken]
    if not free:
        to_visit[:] = rng.permutation(sites).tolist()
        free = [site for site in to_visit if site not in taken]
    to_visit.remove(free[0])
    return free[0]


def _first(accuracy: Sequence[float], target: float) -> int | None:
    return next((n for n, value in enumerate(accuracy, start=1) if value >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=2, help="classes per site")
    parser.add_argument("--sites", type=int, default=10, help="number of sites")
    parser.add_argument(
        "--walkers", type=int, action="append", help="number of models; may be repeated"
    )
    parser.add_argument("--visits", type=int, default=120, help="visits of all models together")
    parser.add_argument("--rate", type=float, default=0.003, help="learning rate")
    parser.add_argument("--split", type=int, action="append", help="a split; may be repeated")
    parser.add_argument(
        "--weigh",
        action="append",
        choices=("alone", "all"),
        help="a rule for weights; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    repeatable()
    found: list[Any] = []
    for walkers in options.walkers or (1, 4):
        for weigh in (options.weigh or ("alone",)) if walkers > 1 else ("alone",):
            for split in options.split or (0, 1):
                with tempfile.TemporaryDirectory() as folder:
                    digits = (options.sites, options.classes, options.rate, split)
                    of = split_digits(Path(folder), *digits)
                    one = course(of, walkers, options.visits, split, weigh)
                found.append(msgspec.to_builtins(one))
                if not options.json:
                    told = " ".join(f"{target}: {at}" for target, at in one.reached.items())
                    print(
                        f"{walkers} walking, weighed {weigh}, split {split}: {told}; at the end "
                        f"{one.accuracy[-1]:.3f} of {one.examples} examples",
                        flush=True,
                    )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
