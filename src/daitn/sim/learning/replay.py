"""Recorded truth: models on recorded routes have the recorded values.

On other routes the model is trained on the spot if a trainer is available; otherwise a surrogate
fitted on the recording stands in. A learner's row for a model holds the recorded node where it is
(-1 off the recorded tree), all recorded numbers (per objective its value, then the value of each
label that its verifier reported), and what it saw of each site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from daitn.objects.merging import MergeRule
from daitn.sim.learning.learner import Examined
from daitn.sim.learning.measuring import LEAST_ITEMS
from daitn.sim.learning.merging import merged_rows
from daitn.sim.learning.recordings import RecordedModel, Route, Split, TrainedSplit
from daitn.sim.learning.surrogate import FADES, Surrogate, SurrogateVisits, fitted, seen_after
from daitn.topology.arrays import Floats, Indices

__all__ = ["KnownModels", "Merger", "Replay", "Trainer", "items_of", "replay"]

Trainer = Callable[[Route], RecordedModel]
"""Trains a model along a route and measures it."""


class Merger(Protocol):
    """Merges models that were trained along routes."""

    def __call__(
        self,
        base: Route,
        made: tuple[Route, ...],
        shares: tuple[float, ...],
        rule: MergeRule,
        before: Route | None,
    ) -> Route:
        """The name of the merged model: a one-step route that is not a visit, from which training
        continues. `before`: the merge whose outer step's state is continued."""
        ...


_REST = "(others)"
"""Represents all items of labels that are too rare to be reported."""


@dataclass
class KnownModels:
    """Models that were trained; grows when a trainer adds some."""

    routes: list[Route] = field(default_factory=list)
    index: dict[Route, int] = field(default_factory=dict)
    numbers: list[Floats] = field(default_factory=list)
    """(D,) each."""

    def add(self, route: Route, numbers: Floats) -> int:
        self.index[route] = len(self.routes)
        self.routes.append(route)
        self.numbers.append(numbers)
        return self.index[route]

    def fresh(self) -> KnownModels:
        """A copy with the untrained model alone."""
        known = KnownModels()
        known.add((), self.numbers[0])
        return known


@dataclass(frozen=True)
class Replay:
    """S data sets, D recorded numbers, O objectives, L labels."""

    split: Split
    tests: tuple[Examined, ...]
    known: KnownModels
    surrogate: Surrogate
    trainer: Trainer | None = None
    merger: Merger | None = None

    def fresh(self, count: int) -> Floats:
        sites = len(self.split.sites)
        start = np.concatenate([[0.0], self.known.numbers[0], np.zeros(len(FADES) * sites)])
        return np.tile(start, (count, 1))

    def again(self, trainer: Trainer | None, merger: Merger | None = None) -> Replay:
        """The same data sets with different training outcomes: nothing recorded is replayed.
        `trainer` and `merger` use other seeds; without them, all models are the surrogate's."""
        known = KnownModels()
        fresh = numbers_of(trainer(()), self.tests) if trainer else self.known.numbers[0]
        known.add((), fresh)
        return replace(self, known=known, trainer=trainer, merger=merger)

    def trained(
        self,
        models: Floats,
        dataset: Indices,
        examples: Floats,
        at_s: Floats,
        rng: np.random.Generator | None,
        merged: bool = False,
    ) -> Floats:
        width = len(self.known.numbers[0])
        visits = SurrogateVisits(
            models[:, 1 : 1 + width], models[:, 1 + width :], dataset, examples
        )
        after = np.empty_like(models)
        after[:, 1 + width :] = seen_after(visits.seen, dataset, examples)
        stops = zip(models[:, 0], dataset, examples, strict=True)
        sign = -1 if merged and self.trainer is not None else 1
        after[:, 0] = [self._child(int(node), (int(k), sign * int(n))) for node, k, n in stops]
        for row, child in enumerate(after[:, 0]):
            if child >= 0:
                after[row, 1 : 1 + width] = self.known.numbers[int(child)]
        guessed = after[:, 0] < 0
        if guessed.any():
            numbers = self.surrogate.after(visits.take(guessed), rng)
            if rng is not None:
                numbers = np.round(numbers * self._items) / self._items
            after[guessed, 1 : 1 + width] = numbers
        return after

    def _child(self, node: int, visit: tuple[int, int]) -> int:
        """The node after one more visit; -1 if unknown."""
        if node < 0:
            return -1
        route = (*self.known.routes[node], visit)
        child = self.known.index.get(route)
        if child is None and self.trainer is not None:
            child = self.known.add(route, numbers_of(self.trainer(route), self.tests))
        return -1 if child is None else child

    def merged(
        self,
        base: Floats,
        models: Floats,
        shares: Floats,
        rule: MergeRule,
        moments: Floats | None,
    ) -> tuple[Floats, Floats]:
        """Really merged if all were really trained; otherwise numbers are merged, see `merging`."""
        nodes = [int(node) for node in (base[0], *models[:, 0])]
        if self.merger is None or self.trainer is None or min(nodes) < 0:
            return self._guessed(base, models, shares, rule, moments)
        start, *made = (self.known.routes[node] for node in nodes)
        before = None if moments is None else self.known.routes[int(moments[0])]
        route = self.merger(start, tuple(made), tuple(map(float, shares)), rule, before)
        node = self.known.index.get(route)
        if node is None:
            node = self.known.add(route, numbers_of(self.trainer(route), self.tests))
        width, sites = len(self.known.numbers[0]), base[1 + len(self.known.numbers[0]) :]
        seen = sites + (models[:, 1 + width :] - sites).sum(axis=0)
        return np.concatenate([[float(node)], self.known.numbers[node], seen]), np.array([node])

    def _guessed(
        self,
        base: Floats,
        models: Floats,
        shares: Floats,
        rule: MergeRule,
        moments: Floats | None,
    ) -> tuple[Floats, Floats]:
        row, moments = merged_rows(base, models, shares, rule, moments)
        width = 1 + len(self.known.numbers[0])
        row[0] = -1.0
        row[1:width] = np.clip(row[1:width], 0.0, 1.0)
        row[width:] = base[width:] + (models[:, width:] - base[width:]).sum(axis=0)
        return row, moments

    def values(self, models: Floats) -> Floats:
        """Unreported labels share what is left of the objective's value."""
        numbers = models[:, 1 : 1 + len(self.known.numbers[0])]
        values = np.zeros((len(models), *self._shape))
        at = 0
        for k, test in enumerate(self.tests):
            total = numbers[:, at] * test.total
            at += 1
            for place, (label, items) in enumerate(zip(test.labels, test.items, strict=True)):
                if label == _REST:
                    values[:, k, place] = total / items
                else:
                    values[:, k, place] = numbers[:, at]
                    total = total - numbers[:, at] * items
                    at += 1
        return values

    @cached_property
    def _items(self) -> Floats:
        """(D,): number of items behind each number."""
        items: list[int] = []
        for test in self.tests:
            labelled = (
                n for label, n in zip(test.labels, test.items, strict=True) if label != _REST
            )
            items += [test.total, *labelled]
        return np.array(items, dtype=np.float64)

    @cached_property
    def _shape(self) -> tuple[int, int]:
        return len(self.tests), max(len(test.labels) for test in self.tests)


def replay(
    trained: TrainedSplit,
    repeats: Iterable[TrainedSplit] = (),
    *,
    held_out: bool = True,
    trainer: Trainer | None = None,
    merger: Merger | None = None,
) -> Replay:
    """The learner of a split. `repeats` train the surrogate and are not replayed.

    Without `held_out`, held-out nodes are neither replayed nor used for fitting: to judge the
    surrogate.
    """
    split = trained.split
    tests = tuple(items_of(split, number) for number in range(len(split.tests)))
    nodes = {route: node for route, node in trained.nodes.items() if held_out or not node.held_out}
    known = KnownModels()
    for route in sorted(nodes, key=lambda route: (len(route), route)):
        known.add(route, numbers_of(nodes[route], tests))
    taught = [nodes]
    for other in repeats:
        taught.append({r: n for r, n in other.nodes.items() if held_out or not n.held_out})
    return Replay(split, tests, known, _surrogate(split, tests, taught), trainer, merger)


def items_of(split: Split, number: int) -> Examined:
    """The items of a test by the labels that its verifier reports, and all others together."""
    test = split.tests[number]
    labelled = {
        label: count for label, count in sorted(test.labels.items()) if count >= LEAST_ITEMS
    }
    rest = test.items - sum(labelled.values())
    items = labelled | ({_REST: rest} if rest > 0 else {})
    return Examined(
        objective=test.objective,
        topic=test.topic,
        chance=test.chance,
        labels=tuple(items),
        items=tuple(items.values()),
        untold=(_REST,),
    )


def numbers_of(node: RecordedModel, tests: Sequence[Examined]) -> Floats:
    """(D,): per objective its value and those of its reported labels."""
    numbers = []
    for test in tests:
        score = node.measured[test.objective]
        numbers.append(score.value)
        numbers += [
            score.by_label.get(label, score.value) for label in test.labels if label != _REST
        ]
    return np.array(numbers)


def _surrogate(
    split: Split, tests: Sequence[Examined], taught: Sequence[dict[Route, RecordedModel]]
) -> Surrogate:
    labels = sorted({label for site in split.sites for label in site.labels})
    shares = np.array(
        [
            [site.labels.get(label, 0) / max(1, site.samples) for label in labels]
            for site in split.sites
        ]
    )
    before, after, seen, site, examples = [], [], [], [], []
    for nodes in taught:
        for route in nodes:
            if not route or route[:-1] not in nodes:
                continue
            before.append(numbers_of(nodes[route[:-1]], tests))
            after.append(numbers_of(nodes[route], tests))
            seen.append(_seen(route[:-1], len(split.sites)))
            site.append(route[-1][0])
            examples.append(float(route[-1][1]))
    visits = SurrogateVisits(np.array(before), np.array(seen), np.array(site), np.array(examples))
    return fitted(visits, np.array(after), shares)


def _seen(route: Route, sites: int) -> Floats:
    seen = np.zeros((1, len(FADES) * sites))
    for site, examples in route:
        seen = seen_after(seen, np.array([site]), np.array([float(examples)]))
    return np.asarray(seen[0])
