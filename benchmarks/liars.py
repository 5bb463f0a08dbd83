"""What harm lying members do with each defence, compared with none.

    python -m benchmarks.liars [sites] [honest] [verifiers] [facilities] [--seeds N] [--json FILE]

`sites`: a network of 64, 32 and 10 neurons learns scikit-learn's digits in rounds at ten sites, of
which some lie; the project's aggregation merges the sites' models. The result is the accuracy after
the rounds, on 400 images that no site has. `honest`: the same in networks where nobody lies but
sites differ as much as can be, and how often an honest site was held back. `verifiers`: whole jobs
in learning worlds under virtual time, where some of five verifiers inflate every measurement; the
result is the time relative to no defence without liars. `facilities`: how many facilities that
answer examinations better are detected within twelve hours, and which accuracy is assigned to them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from immutables import Map
from sklearn.datasets import load_digits
from torch import Tensor

from daitn.control.route.chains import alike
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
FIRST_SEED = 0


@dataclass(frozen=True)
class Digits:
    """Digits, split over sites."""

    images: Tensor
    labels: Tensor
    sites: list[Tensor]
    """Rows of each."""
    test: Tensor

    @classmethod
    def dealt(cls, classes: Sequence[Sequence[int]], seed: int) -> Digits:
        """Each site has its classes, each of them in equal parts at those that have it."""
        digits = cls.split(100.0, seed)
        rng = np.random.default_rng(seed)
        rest = np.setdiff1d(np.arange(len(digits.labels)), digits.test.numpy())
        labels = digits.labels.numpy()[rest]
        sites: list[list[int]] = [[] for _ in classes]
        for label in range(10):
            having = [site for site, some in enumerate(classes) if label in some]
            mine = rng.permutation(rest[labels == label])
            for site, part in zip(having, np.array_split(mine, len(having)), strict=True):
                sites[site] += part.tolist()
        return replace(digits, sites=[torch.tensor(site) for site in sites])

    def published(self, site: int) -> dict[str, int]:
        """The site's label histogram."""
        return Counter(map(str, self.labels[self.sites[site]].tolist()))

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
    "wrong labels, ten times the records": _mislabelled,
    "wrong labels, other ones published": _mislabelled,
    "ten times, other ones published": _boosted,
}
CLAIMS = {"wrong labels, ten times the records": 10}
"""How many times its records such a liar says that it has."""
OF_ANOTHER_KIND = ("wrong labels, other ones published", "ten times, other ones published")
"""Such liars publish labels that nobody else has, so that none is compared with others."""

Defence = Callable[[Model, list[Model], list[int], list[bool], set[int]], Model]
"""Merges models of so many examples, from sites with labels like most or not; who is found is left
out, and is in the set."""


def _none(
    base: Model, models: list[Model], shares: list[int], like: list[bool], left_out: set[int]
) -> Model:
    weights = torch.tensor(shares, dtype=torch.float32)
    weights /= weights.sum()
    updates = {name: torch.stack([one[name] - base[name] for one in models]) for name in base}
    return {name: base[name] + Mean().reduce(updates[name], weights) for name in base}


def _by(rule: MergeRule) -> Defence:
    def merged(
        base: Model, models: list[Model], shares: list[int], like: list[bool], left_out: set[int]
    ) -> Model:
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
                    single=range(len(there)),
                    alike=[like[k] for k in there],
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
        for lie in LIES:
            for liars in LIARS if lie == "wrong labels" else LIARS[1:]:
                for defence, merge in DEFENCES.items():
                    began = time.process_time()
                    ends = [
                        _rounds(Digits.split(unlike, seed), seed, merge, lie=lie, liars=liars)
                        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
                    ]
                    yield {
                        "unlike": unlike,
                        "lie": lie if liars else "nobody lies",
                        "liars": liars,
                        "defence": defence,
                        "accuracy": fmean(one.accuracy for one in ends),
                        "caught": fmean(one.caught for one in ends),
                        "wronged": fmean(one.wronged for one in ends),
                        "seconds": (time.process_time() - began) / seeds,
                    }


ALL = tuple(range(10))
HONEST: dict[str, tuple[tuple[int, ...], ...]] = {
    "3 sites with 0-4, 1 with 5-9": ((0, 1, 2, 3, 4),) * 3 + ((5, 6, 7, 8, 9),),
    "8 with 0-1, 1 with 2-5, 1 with 6-9": ((0, 1),) * 8 + ((2, 3, 4, 5), (6, 7, 8, 9)),
    "4 with 0-6, 1 with 7-9": (ALL[:7],) * 4 + (ALL[7:],),
    "9 with 0-8, 1 with 9": (ALL[:9],) * 9 + (ALL[9:],),
    "5 with all, 1 with 9": (ALL,) * 5 + (ALL[9:],),
    "5 with two classes each": tuple(zip(ALL[::2], ALL[1::2], strict=True)),
    "10 with one class each": tuple((label,) for label in ALL),
    "6 with 0-7, later 1 with 8-9": (ALL[:8],) * 6 + (ALL[8:],),
}
JOINS = {"6 with 0-7, later 1 with 8-9": 12}
"""After so many rounds, the last site joins."""


def honest(seeds: int) -> Iterator[Row]:
    """Rounds over honest sites that differ."""
    for world, classes in HONEST.items():
        for defence in ("none", "held back"):
            ends = [
                _rounds(
                    Digits.dealt(classes, seed), seed, DEFENCES[defence], joins=JOINS.get(world, 0)
                )
                for seed in range(FIRST_SEED, FIRST_SEED + seeds)
            ]
            yield {
                "world": world,
                "defence": defence,
                "accuracy": fmean(one.accuracy for one in ends),
                "wronged": sum(one.wronged for one in ends),
                "held back": sum(one.held_back for one in ends),
            }


class End(NamedTuple):
    """How rounds ended."""

    accuracy: float
    caught: int
    """Liars left out for good: after two rounds in which they were found, as in a job."""
    wronged: int
    """Honest sites left out for good."""
    held_back: int
    """How often an honest site's model was held back."""


def _rounds(
    digits: Digits, seed: int, merge: Defence, *, lie: str = "", liars: int = 0, joins: int = 0
) -> End:
    """`joins`: rounds before the last site takes part, after which come the usual number."""
    count = len(digits.sites)
    lying = set(random.Random(seed).sample(range(count), liars))
    published = [digits.published(site) for site in range(count)]
    if lie in OF_ANOTHER_KIND:
        for site in lying:
            published[site] = {"of its own": len(digits.sites[site])}
    model, strikes, held_back = digits.fresh(seed), [0] * count, 0
    for number in range(joins + ROUNDS):
        here = range(count if number >= joins else count - 1)
        there = [site for site in here if strikes[site] < 2]
        made = [
            (LIES[lie] if site in lying else _honest)(
                digits, model, digits.sites[site], 1000 * seed + 20 * number + site
            )
            for site in there
        ]
        shares = [
            len(digits.sites[site]) * (CLAIMS.get(lie, 1) if site in lying else 1) for site in there
        ]
        found = set[int]()
        model = merge(model, made, shares, alike([published[site] for site in there]), found)
        for one in found:
            strikes[there[one]] += 1
            held_back += there[one] not in lying
    out = {site for site, found_twice in enumerate(strikes) if found_twice >= 2}
    return End(digits.accuracy(model), len(out & lying), len(out - lying), held_back)


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
    "honest": honest,
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
