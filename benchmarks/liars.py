"""What harm lying members do with each defence, compared with none.

    python -m benchmarks.liars [sites] [verifiers] [facilities] [--seeds N] [--json FILE]

`sites`: a network of 64, 32 and 10 neurons learns scikit-learn's digits in rounds at ten sites, of
which some lie; the project's aggregation merges the sites' models. The result is the accuracy after
the rounds, on 400 images that no site has. `verifiers`: whole jobs in learning worlds under virtual
time, where some of five verifiers inflate every measurement; the result is the time relative to no
defence without liars. `facilities`: how many facilities that answer examinations better are
detected within twelve hours, and which accuracy is assigned to them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any

import msgspec
import numpy as np
import torch
from immutables import Map
from sklearn.datasets import load_digits
from torch import Tensor

from daitn.control.two_faced import Paired
from daitn.learning.aggregation.mean import Mean
from daitn.learning.aggregation.merging import merge_tensors
from daitn.node.verifier.probing import PROBES
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import SiteId
from daitn.objects.merging import MergeRule, Reduces
from daitn.objects.quorum import ONE, Quorum
from daitn.sim.learning.baselines.by_size import BySize
from daitn.sim.learning.episode import run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.world import LearningWorld

Model = dict[str, Tensor]
Row = dict[str, Any]

SITES, ROUNDS, BATCH, RATE = 10, 8, 40, 0.2
UNLIKE = (100.0, 0.3)
"""Dirichlet's parameter of each class over the sites: even, and hardly alike."""
LIARS = (0, 1, 3)


@dataclass(frozen=True)
class Digits:
    """Digits, split over sites."""

    images: Tensor
    labels: Tensor
    sites: list[Tensor]
    """Rows of each."""
    test: Tensor

    @classmethod
    def split(cls, unlike: float, seed: int) -> Digits:
        images, labels = load_digits(return_X_y=True)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        test, rest = order[:400], order[400:]
        home = np.zeros(len(rest), np.int64)
        for label in range(10):
            mine = np.flatnonzero(labels[rest] == label)
            home[mine] = rng.choice(SITES, len(mine), p=rng.dirichlet([unlike] * SITES))
        rows = [torch.tensor(rest[home == site]) for site in range(SITES)]
        return cls(
            torch.tensor(images / 16.0, dtype=torch.float32),
            torch.tensor(labels),
            [one for one in rows if len(one) >= 10],
            torch.tensor(test),
        )

    def fresh(self, seed: int) -> Model:
        rng = torch.Generator().manual_seed(seed)
        return {
            "a": torch.randn(64, 32, generator=rng) * 0.18,
            "b": torch.zeros(32),
            "c": torch.randn(32, 10, generator=rng) * 0.25,
            "d": torch.zeros(10),
        }

    def visit(self, model: Model, rows: Tensor, labels: Tensor, seed: int) -> Model:
        """Two epochs."""
        mine = {name: tensor.clone().requires_grad_() for name, tensor in model.items()}
        rng = np.random.default_rng(seed)
        for _ in range(2):
            order = torch.tensor(rng.permutation(len(rows)))
            for picked in torch.split(order, BATCH):
                loss = torch.nn.functional.cross_entropy(
                    _scores(mine, self.images[rows[picked]]), labels[picked]
                )
                for tensor, slope in zip(
                    mine.values(), torch.autograd.grad(loss, list(mine.values())), strict=True
                ):
                    tensor.data -= RATE * slope
        return {name: tensor.detach() for name, tensor in mine.items()}

    def accuracy(self, model: Model) -> float:
        found = _scores(model, self.images[self.test]).argmax(dim=1)
        return float((found == self.labels[self.test]).float().mean())


def _scores(model: Model, images: Tensor) -> Tensor:
    hidden = torch.relu(images @ model["a"] + model["b"])
    return hidden @ model["c"] + model["d"]


def _moved(model: Model, made: Model, by: float) -> Model:
    return {name: model[name] + by * (made[name] - model[name]) for name in model}


Lie = Callable[[Digits, Model, Tensor, int], Model]


def _mislabelled(digits: Digits, model: Model, rows: Tensor, seed: int) -> Model:
    return digits.visit(model, rows, 9 - digits.labels[rows], seed)


def _honest(digits: Digits, model: Model, rows: Tensor, seed: int) -> Model:
    return digits.visit(model, rows, digits.labels[rows], seed)


def _backwards(digits: Digits, model: Model, rows: Tensor, seed: int) -> Model:
    return _moved(model, _honest(digits, model, rows, seed), -1.0)


def _boosted(digits: Digits, model: Model, rows: Tensor, seed: int) -> Model:
    return _moved(model, _mislabelled(digits, model, rows, seed), 10.0)


LIES: dict[str, Lie] = {
    "wrong labels": _mislabelled,
    "wrong labels, ten times": _boosted,
    "backwards": _backwards,
}

Defence = Callable[[Model, list[Model], list[int], set[int]], Model]
"""Merges models of so many examples; what is in the set is left out, as is who is found."""


def _none(base: Model, models: list[Model], shares: list[int], left_out: set[int]) -> Model:
    weights = torch.tensor(shares, dtype=torch.float32)
    weights /= weights.sum()
    updates = {name: torch.stack([one[name] - base[name] for one in models]) for name in base}
    return {name: base[name] + Mean().reduce(updates[name], weights) for name in base}


def _by(rule: MergeRule) -> Defence:
    def merged(base: Model, models: list[Model], shares: list[int], left_out: set[int]) -> Model:
        there = list(range(len(models)))
        while True:
            try:
                return merge_tensors(
                    base,
                    [models[k] for k in there],
                    [shares[k] for k in there],
                    rule,
                    seed=1,
                    moments={},
                    screened=True,
                )[0]
            except Corrupt as odd:
                found = there.pop(int(odd.field[len("models[") : -1]))
                left_out.add(found)

    return merged


DEFENCES: dict[str, Defence] = {
    "none": _none,
    "held back": _by(MergeRule()),
    "median": _by(MergeRule(reduction=Reduces.MEDIAN)),
    "trimmed mean": _by(MergeRule(reduction=Reduces.TRIMMED_MEAN, tolerates=2)),
    "Krum": _by(MergeRule(reduction=Reduces.KRUM, tolerates=2)),
}


def sites(seeds: int) -> Iterator[Row]:
    """Rounds over sites that lie."""
    for unlike in UNLIKE:
        for lie, does in LIES.items():
            for liars in LIARS if lie == "wrong labels" else LIARS[1:]:
                for defence, merge in DEFENCES.items():
                    began = time.process_time()
                    ends = [_rounds(unlike, seed, does, liars, merge) for seed in range(seeds)]
                    yield {
                        "unlike": unlike,
                        "lie": lie if liars else "nobody lies",
                        "liars": liars,
                        "defence": defence,
                        "accuracy": fmean(accuracy for accuracy, *_ in ends),
                        "caught": fmean(caught for _, caught, _ in ends),
                        "wronged": fmean(wronged for *_, wronged in ends),
                        "seconds": (time.process_time() - began) / seeds,
                    }


def _rounds(
    unlike: float, seed: int, does: Lie, liars: int, merge: Defence
) -> tuple[float, int, int]:
    """Accuracy, and how many liars and honest sites were left out for good: after two rounds in
    which they were found, as in a job."""
    digits = Digits.split(unlike, seed)
    lying = set(random.Random(seed).sample(range(len(digits.sites)), liars))
    model, strikes = digits.fresh(seed), [0] * len(digits.sites)
    for number in range(ROUNDS):
        there = [site for site, found in enumerate(strikes) if found < 2]
        made = [
            (does if site in lying else _honest)(
                digits, model, digits.sites[site], 1000 * seed + 20 * number + site
            )
            for site in there
        ]
        found = set[int]()
        model = merge(model, made, [len(digits.sites[site]) for site in there], found)
        for one in found:
            strikes[there[one]] += 1
    out = {site for site, found_twice in enumerate(strikes) if found_twice >= 2}
    return digits.accuracy(model), len(out & lying), len(out - lying)


UNITS = 5
WORLDS = ("plain", "duplicates")
PRAISE = 0.3
QUORA = {
    "none": ONE,
    "2 of 3": Quorum(quorum=2, of=3),
    "3 of 5": Quorum(quorum=3, of=5),
}
_NEARLY = 0.03
"""A model this short of its targets, summed over them, has as good as reached them: about what luck
at the measurement that ends a job makes of it."""


def verifiers(seeds: int) -> Iterator[Row]:
    """Jobs whose verifiers praise every model."""
    usual: list[float] = []
    for liars in (0, 1, 2):
        for defence, quorum in QUORA.items():
            ends = [
                run(_praised(FAMILIES[family](seed), liars, quorum), BySize())
                for family in WORLDS
                for seed in range(seeds)
            ]
            seconds = [one.seconds for one in ends]
            usual = usual or seconds
            yield {
                "liars": liars,
                "defence": defence,
                "jobs": len(ends),
                "said to reach": sum(one.reached for one in ends),
                "reached": sum(one.reached and one.short <= _NEARLY for one in ends),
                "short": fmean(one.short for one in ends),
                "visits": fmean(one.visits for one in ends),
                "seconds": geometric_mean(
                    mine / other for mine, other in zip(seconds, usual, strict=True)
                ),
            }


def _praised(world: LearningWorld, liars: int, quorum: Quorum) -> LearningWorld:
    """The world with five verifiers instead of its first one, of which some lie."""
    like = world.verifiers[0]
    names = [SiteId(f"unit{number}") for number in range(UNITS)]
    lying = random.Random(world.seed).sample(names, liars)
    return replace(
        world,
        verifiers=tuple(
            replace(like, name=name, node=msgspec.structs.replace(like.node, site=name))
            for name in names
        ),
        lies=Map(dict.fromkeys(lying, PRAISE)),
        intent=msgspec.structs.replace(
            world.intent, verification=msgspec.UNSET if quorum == ONE else quorum
        ),
    )


FACILITIES, HOURS = 40, 12
SHOWN = 0.9


def facilities(seeds: int) -> Iterator[Row]:
    """Facilities that answer a round's questions as a better model would, and others as they do.

    A round a minute; an item that is hard is so both times: half of what decides is the item's.
    """
    for given in (0.9, 0.85, 0.8, 0.7, 0.5):
        for defence in ("none", "single questions"):
            found: list[tuple[bool, float, float]] = []
            for seed in range(FACILITIES * seeds):
                rng, probing = random.Random(seed), Paired()
                minutes = 60 * HOURS if defence == "single questions" else 0
                taken = 60.0 * HOURS
                for minute in range(minutes):
                    for _ in range(PROBES):
                        item = rng.random() if rng.random() < 0.5 else None
                        alone, together = (
                            (rng.random() if item is None else item) < value
                            for value in (given, SHOWN)
                        )
                        probing.took(alone, together)
                    if probing.marked:
                        taken = minute + 1.0
                        break
                told = probing.answered().value if probing.marked else SHOWN
                found.append((probing.marked, told, taken))
            yield {
                "in rounds": SHOWN,
                "to others": given,
                "defence": defence,
                "facilities": len(found),
                "found": sum(marked for marked, *_ in found),
                "believed": fmean(told for _, told, _ in found),
                "minutes": fmean(taken for marked, _, taken in found if marked)
                if any(marked for marked, *_ in found)
                else math.nan,
            }


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "sites": sites,
    "verifiers": verifiers,
    "facilities": facilities,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Row]] = {}
    for part in options.parts or PARTS:
        rows = found.setdefault(part, [])
        for row in PARTS[part](options.seeds):
            if not rows:
                print(f"\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
            rows.append(row)
            cells = (
                f"{cell:.3f}" if isinstance(cell, float) else f"{cell}" for cell in row.values()
            )
            print(f"| {' | '.join(cells)} |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
