"""The hidden truth of a world: a model's knowledge after training somewhere.

A learner works on N models at once. It keeps one row of floats per model, whose meaning is private
to the learner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from daitn.objects.merging import MergeRule
from daitn.topology.arrays import Floats, Indices

__all__ = ["Examined", "Learner"]


@dataclass(frozen=True)
class Examined:
    """The private test set of one objective."""

    objective: str
    topic: str
    chance: float
    labels: tuple[str, ...]
    items: tuple[int, ...]
    """Per label."""
    untold: tuple[str, ...] = ()
    """Labels that a verifier does not report."""

    @property
    def total(self) -> int:
        return sum(self.items)


class Learner(Protocol):
    """How models learn at the data sets 0, 1, ... of a world."""

    def fresh(self, count: int) -> Floats:
        """`count` untrained models, one row each."""
        ...

    def trained(
        self,
        models: Floats,
        dataset: Indices,
        examples: Floats,
        at_s: Floats,
        rng: np.random.Generator | None,
        merged: bool = False,
    ) -> Floats:
        """Each row after its visit that begins at `at_s`. Without `rng` there is no luck.

        `merged`: the models will be merged, so that nothing holds the visits back.
        """
        ...

    def merged(
        self,
        base: Floats,
        models: Floats,
        shares: Floats,
        rule: MergeRule,
        moments: Floats | None,
    ) -> tuple[Floats, Floats]:
        """The model (W,) merged by a site from `models` (K, W), which were trained from `base`, and
        the new state of its outer step, a row of floats that is private to the learner.

        `shares` (K,): examples of each; `moments`: what the merge before it remembers.
        """
        ...

    def values(self, models: Floats) -> Floats:
        """(N, objectives, labels): the true value of each label of each test."""
        ...
