"""Filter, score, pick over many thousands of candidates at once.

The same pipeline as `daitn.policy.pipeline`, for candidates that are rows of arrays: scorers give
an array of terms, weights come from the profile and the preferences, and the decision has the same
form. Candidates must be ordered by id, so that ties break by id as they do there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.policy.pipeline import Rng

__all__ = ["MOST_WEIGHT", "OUT", "ArrayPolicy", "best_first", "every"]

CutT = TypeVar("CutT")
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_WEIGHT = 1e6
"""A larger weight would drown the other scorers or overflow the sum."""
OUT = -1.0
"""Below every score: marks a candidate that was filtered out or already taken."""


@dataclass(frozen=True)
class ArrayPolicy(Generic[CutT]):
    """A named scoring policy; see `daitn.policy.pipeline.Policy`."""

    name: str
    scorers: Mapping[str, Callable[[CutT, Flags], Floats | float]]
    """By name. Each gets the flags of the candidates that passed, and gives one term in [0, 1] per
    candidate or one for all. Terms of candidates that failed may be anything finite."""
    weights: Mapping[str, float]

    def weighted(self, preferences: Sequence[Preference]) -> dict[str, float]:
        """The weights under these preferences.

        Raises `InvalidInput` for an unknown scorer, or a weight outside 0 to `MOST_WEIGHT`.
        """
        weights = dict(self.weights)
        for preference in preferences:
            if preference.scorer not in weights:
                raise InvalidInput(
                    f"{self.name} has no scorer {preference.scorer!r}",
                    field=f"prefer.{preference.scorer}",
                    fix=f"use one of {', '.join(sorted(weights))}",
                )
            if not 0.0 <= preference.weight <= MOST_WEIGHT:
                raise InvalidInput(
                    f"a weight is not {preference.weight}",
                    field=f"prefer.{preference.scorer}",
                    fix=f"give a number from 0 to {MOST_WEIGHT:g}",
                )
            weights[preference.scorer] = preference.weight
        return weights

    def scores(self, cut: CutT, passes: Flags, preferences: Sequence[Preference]) -> Floats:
        """Weighted mean of the terms per candidate; below 0 for those that did not pass."""
        weights = self.weighted(preferences)
        total = sum(weights.values())
        result: Floats | None = None
        for scorer, weight in weights.items():
            if weight > 0:
                term = self.scorers[scorer](cut, passes)
                if isinstance(term, float) and term == 0.0:
                    continue  # Zero for all candidates: it changes no sum.
                share = term * (weight / total)
                if result is None:
                    result = np.full(len(passes), share) if isinstance(share, float) else share
                else:
                    result += share
        if result is None:
            result = np.zeros(len(passes))
        if not every(passes):
            result[~passes] = OUT
        return result

    def terms(self, cut: CutT, passes: Flags) -> dict[str, Floats]:
        """Every scorer's terms."""
        return {
            name: np.broadcast_to(scorer(cut, passes), passes.shape)
            for name, scorer in self.scorers.items()
        }


def every(passes: Flags) -> bool:
    """Whether all passed; takes a quarter of the time of `all`."""
    return int(np.count_nonzero(passes)) == len(passes)


def best_first(scores: Floats, most: int, near: float, rng: Rng) -> list[int]:
    """The positions of the `most` best candidates with scores of at least 0, best first.

    The first is drawn at random among all within `near` of the best: scores are estimates, and
    gateways that all took the same candidate would crowd it. The others follow by score.
    """
    left = scores.copy()
    taken: list[int] = []
    while len(taken) < most:
        top = int(left.argmax()) if len(left) else -1
        if top < 0 or left[top] < 0:
            break
        if not taken and near > 0:
            (close,) = (left >= left[top] - near).nonzero()
            top = int(close[int(rng.random() * len(close))])
        taken.append(top)
        left[top] = OUT
    return taken
