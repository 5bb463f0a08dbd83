"""Trees in memory, and their scores.

Every tree has the same depth D and lies in arrays as a heap does: below split k are 2 k + 1 and
2 k + 2, and the last level are leaves. So no arrays hold a tree that has a circle or a loose end. A
branch that ends early goes left all the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daitn.objects.merging import MergeRule, OuterStep, Reduces

__all__ = ["ARRAYS", "END", "Ensemble", "log_probabilities", "unites"]

END = -1
"""Instead of a column: no decision, always left."""
_AT_ONCE = 1 << 20
"""Limit on trees times records."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """T trees of depth D, which decide by a column's value: left below the threshold."""

    group: NDArray[np.uint16]
    """(T,): the score that a tree adds to."""
    column: NDArray[np.int32]
    """(T, 2^D - 1)."""
    threshold: NDArray[np.float32]
    """(T, 2^D - 1)."""
    missing: NDArray[np.uint8]
    """(T, 2^D - 1): 1 where a missing value goes left."""
    leaf: NDArray[np.float32]
    """(T, 2^D)."""

    @classmethod
    def empty(cls, depth: int, trees: int = 0) -> Ensemble:
        """No trees."""
        splits = 2**depth - 1
        return cls(
            group=np.zeros(trees, np.uint16),
            column=np.full((trees, splits), END, np.int32),
            threshold=np.zeros((trees, splits), np.float32),
            missing=np.zeros((trees, splits), np.uint8),
            leaf=np.zeros((trees, splits + 1), np.float32),
        )

    @classmethod
    def joined(cls, parts: Sequence[Ensemble]) -> Ensemble:
        """All trees of ensembles of one depth."""
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in ARRAYS})

    def __len__(self) -> int:
        return len(self.group)

    @property
    def depth(self) -> int:
        return int(self.leaf.shape[1]).bit_length() - 1

    def part(self, which: slice) -> Ensemble:
        """Some of the trees."""
        return Ensemble(**{name: getattr(self, name)[which] for name in ARRAYS})

    def but(self, **changed: NDArray[Any]) -> Ensemble:
        """The same trees with other arrays."""
        return replace(self, **changed)

    def equals(self, other: Ensemble) -> bool:
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ARRAYS)

    def reached(self) -> NDArray[np.bool_]:
        """(T, 2^D): the leaves that records can reach."""
        reached = np.ones((len(self), 1), np.bool_)
        for level in range(self.depth):
            splits = self.column[:, 2**level - 1 : 2 ** (level + 1) - 1] != END
            reached = np.stack([reached, reached & splits], axis=2).reshape(len(self), -1)
        return reached

    def margins(self, features: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
        """(records, groups): the sums of the trees' leaves, added one after the other in 32 bits,
        like xgboost."""
        sums = np.zeros((len(features), groups), np.float32)
        for trees, rows in _pieces(len(self), len(features)):
            some = self.part(trees)
            leaves = some._leaves(features[rows])
            for group in np.unique(some.group):
                added = np.vstack([sums[rows, group], leaves[some.group == group]])
                sums[rows, group] = np.add.accumulate(added, axis=0, dtype=np.float32)[-1]
        return sums

    def _leaves(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, records): the leaf of each record in each tree."""
        tree, row = np.arange(len(self))[:, None], np.arange(len(features))[None]
        at = np.zeros((len(self), len(features)), np.int64)
        for _ in range(self.depth):
            column = self.column[tree, at]
            value = features[row, column]
            left = np.where(
                np.isnan(value), self.missing[tree, at] == 1, value < self.threshold[tree, at]
            )
            at = 2 * at + np.where(left | (column == END), 1, 2)
        found: NDArray[np.float32] = self.leaf[tree, at - self.column.shape[1]]
        return found


ARRAYS = tuple(field.name for field in fields(Ensemble))


def log_probabilities(margins: NDArray[np.float32]) -> NDArray[np.float64]:
    """(records, classes): log probabilities from scores: the logit of the second of two classes, or
    each class's exponent."""
    scores = margins.astype(np.float64)
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    scores = scores - scores.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return found


def _pieces(trees: int, records: int) -> Iterator[tuple[slice, slice]]:
    """All trees for all records; a record's trees in order."""
    few = max(1, min(trees, _AT_ONCE // max(1, records)))
    rows = max(1, _AT_ONCE // few)
    for first in range(0, trees, few):
        for row in range(0, records, rows):
            yield slice(first, first + few), slice(row, row + rows)


def unites(rule: MergeRule) -> bool:
    """Whether a rule merges ensembles: the union of their trees has the mean of their scores."""
    return rule.reduction is Reduces.MEAN and rule.outer is OuterStep.PLAIN
