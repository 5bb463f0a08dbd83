"""Worlds of really trained models at many sites: alike, or as unlike as one class each.

A bundled table is dealt to 4 to 48 sites. Models are trained in memory, as by the recipe
`classifier` but in NumPy, in a millisecond per visit, and merged by the recipes' own rules. So
nothing has to be recorded beforehand: targets and budgets also follow from routes that are really
trained.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split

from benchmarks.peers.programs.learners import Array
from benchmarks.peers.programs.learners import Learner as Site
from daitn.learning.aggregation.merging import merge_tensors
from daitn.objects.merging import MergeRule
from daitn.sim.learning.families.conditions import plain
from daitn.sim.learning.families.draft import log_uniform
from daitn.sim.learning.families.nodes import needs
from daitn.sim.learning.families.targets import provisional, settled
from daitn.sim.learning.learner import Examined
from daitn.sim.learning.recordings import RecordedSite, Split
from daitn.sim.learning.world import LearningWorld
from daitn.topology.arrays import Floats, Indices

__all__ = ["MANY", "TrainedInMemory", "dealt", "many_sites"]

MANY = "many sites"
_TABLES: tuple[tuple[Callable[..., Any], int], ...] = (
    (datasets.load_digits, 48),
    (datasets.load_digits, 48),
    (datasets.load_breast_cancer, 16),
)
"""What is dealt, and to how many sites at most; digits twice as often."""
_LEAST_SITES = 4
_ALPHAS = (100.0, 1.0, 0.3, 0.1, 0.0)
"""Of Dirichlet distributions by which labels are dealt (Hsu et al. 2019, arXiv:1909.06335): from
alike sites to one class each (0)."""
_RATES = (0.001, 0.003, 0.01)
_HELD_BACK = 0.03
"""The pull by which the recipe holds visits of a route back; it holds none of a round."""
_HIDDEN = 64
_TOPIC = "records"

Labels = NDArray[np.int64]


class _Memory(Site):
    """A site, or the test, whose records are in memory already."""

    def __init__(self, records: Array, labels: Labels, rate: float) -> None:
        self._x, self._y = records, labels
        self._rate, self._batch = rate, 32


@dataclass
class TrainedInMemory:
    """How models of records in memory learn. A row is the number of a model."""

    sites: list[_Memory]
    tests: list[_Memory]
    """The test's records by their labels."""
    models: list[list[Array]]
    luck: int = 0
    known: dict[tuple[int, int, int, bool], int] = field(default_factory=dict)
    """What each visit, of a model to a site with so many examples, of a round or not, made."""
    scores: dict[int, list[float]] = field(default_factory=dict)
    """The accuracy of each model on each label."""
    moments: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def again(self) -> TrainedInMemory:
        """The same data, where visits fall out otherwise."""
        return TrainedInMemory(self.sites, self.tests, self.models[:1], self.luck + 1)

    def fresh(self, count: int) -> Floats:
        return np.zeros((count, 1))

    def trained(
        self,
        models: Floats,
        dataset: Indices,
        examples: Floats,
        at_s: Floats,
        rng: np.random.Generator | None,
        merged: bool = False,
    ) -> Floats:
        visits = zip(models[:, 0], dataset, examples, strict=True)
        made = [self._visit(int(of), int(site), int(n), merged) for of, site, n in visits]
        return np.array(made, np.float64)[:, None]

    def _visit(self, model: int, site: int, examples: int, merged: bool) -> int:
        asked = (model, site, examples, merged)
        if asked not in self.known:
            where = self.sites[site]
            epochs, pull = examples / where.examples(1.0), 0.0 if merged else _HELD_BACK
            seed = zlib.crc32(repr((self.luck, *asked)).encode())
            self.known[asked] = len(self.models)
            self.models.append(where.train(self.models[model], epochs, seed, pull))
        return self.known[asked]

    def merged(
        self,
        base: Floats,
        models: Floats,
        shares: Floats,
        rule: MergeRule,
        moments: Floats | None,
    ) -> tuple[Floats, Floats]:
        found, kept = merge_tensors(
            self._tensors(base),
            [self._tensors(model) for model in models],
            [float(share) for share in shares],
            rule,
            seed=0,
            moments={} if moments is None else self.moments[int(moments[0])],
        )
        self.models.append([found[f"{k:02}"].numpy() for k in range(len(found))])
        self.moments.append(kept)
        return np.array([float(len(self.models) - 1)]), np.array([float(len(self.moments) - 1)])

    def _tensors(self, model: Floats) -> dict[str, torch.Tensor]:
        weights = self.models[int(model[0])]
        return {f"{k:02}": torch.from_numpy(weight) for k, weight in enumerate(weights)}

    def values(self, models: Floats) -> Floats:
        for of in map(int, models[:, 0]):
            if of not in self.scores:
                self.scores[of] = [test.accuracy(self.models[of]) for test in self.tests]
        return np.array([[self.scores[int(of)]] for of in models[:, 0]])


def many_sites(seed: int) -> LearningWorld:
    """Four to 48 sites over links that hardly matter, alike or not."""
    rng = np.random.default_rng((seed, zlib.crc32(MANY.encode())))
    learner, split, test = dealt(seed, rng)
    network = plain(rng, split)
    items = dict(zip(test.labels, test.items, strict=True))
    world = LearningWorld(
        family=MANY,
        seed=seed,
        intent=provisional((test,), _TOPIC),
        needs=needs(split.flops_per_example, network.size_bytes),
        sites=network.sites,
        verifiers=(network.verifier((test,), (items,)),),
        tests=(test,),
        learner=learner,
        measured_before=True,
        honest=frozenset(site.name for site in network.sites),
        split=split.split,
    )
    return settled(world, network.terms)


def dealt(seed: int, rng: np.random.Generator) -> tuple[TrainedInMemory, Split, Examined]:
    """The records of some sites, what they publish of them, and the test."""
    load, most = _TABLES[int(rng.integers(len(_TABLES)))]
    records, labels = load(return_X_y=True)
    records = _scaled(records)
    classes = tuple(str(label) for label in np.unique(labels))
    x, tested, y, tested_labels = train_test_split(
        records, labels, test_size=0.25, random_state=int(rng.integers(2**31)), stratify=labels
    )
    count, alpha = round(log_uniform(rng, _LEAST_SITES, most)), float(rng.choice(_ALPHAS))
    rate = float(rng.choice(_RATES))
    owned = _owned(y, count, alpha, rng)
    learner = TrainedInMemory(
        sites=[_Memory(x[own], y[own], rate) for own in owned],
        tests=[
            _Memory(tested[tested_labels == label], tested_labels[tested_labels == label], rate)
            for label in range(len(classes))
        ],
        models=[_fresh((x.shape[1], _HIDDEN, len(classes)), rng)],
    )
    items = tuple(int((tested_labels == label).sum()) for label in range(len(classes)))
    test = Examined("broad", _TOPIC, 1 / len(classes), classes, items)
    name = f"{MANY} {seed}, alpha {alpha:g}, rate {rate:g}"
    return learner, _split(name, learner, classes, y, owned), test


def _scaled(records: Floats) -> Array:
    spread = records.std(axis=0) + 1e-3
    return np.asarray(((records - records.mean(axis=0)) / spread).clip(-5.0, 5.0), np.float32)


def _fresh(sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Weight and bias of each layer, drawn as `torch.nn.Linear` draws them."""
    weights: list[Array] = []
    for inner, outer in pairwise(sizes):
        bound = inner**-0.5
        weights += [
            rng.uniform(-bound, bound, shape).astype(np.float32)
            for shape in ((outer, inner), outer)
        ]
    return weights


def _owned(labels: Labels, count: int, alpha: float, rng: np.random.Generator) -> list[Labels]:
    """The records of each site."""
    classes = len(np.unique(labels))
    owners = np.zeros(len(labels), np.int64)
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        if alpha:
            shares = rng.dirichlet(np.full(count, alpha)) + 1e-9
        else:
            shares = (np.arange(count) % classes == label % count).astype(np.float64)
        owners[rows] = rng.choice(count, len(rows), p=shares / shares.sum())
    sites = [np.flatnonzero(owners == site) for site in range(count)]
    return [rows for rows in sites if len(rows) >= 8]


def _split(
    name: str,
    learner: TrainedInMemory,
    classes: tuple[str, ...],
    labels: Labels,
    owned: list[Labels],
) -> Split:
    """What a network is drawn around."""
    parameters = sum(weight.size for weight in learner.models[0])
    counts = [np.bincount(labels[own], minlength=len(classes)) for own in owned]
    return Split(
        split=name,
        recipe="classifier",
        config={},
        parameters=parameters,
        flops_per_example=6.0 * parameters,
        size_bytes=4 * parameters,
        sites=tuple(
            RecordedSite(
                site=f"site-{number:02}",
                samples=int(held.sum()),
                labels={label: int(n) for label, n in zip(classes, held, strict=True) if n},
                topics=(_TOPIC,),
                quality=1.0,
            )
            for number, held in enumerate(counts)
        ),
        tests=(),
        targets={},
    )
