"""Filter, score, pick over many thousands of candidates at once.

The same pipeline as `daitn.policy.pipeline`, for candidates that are rows of arrays: scorers give
an array of terms, weights are those of the profile and of the preferences, and the decision that
is told has the same form. Candidates must come in the order of their ids, so that ties break by
id here as there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.objects.randomness import Rng

__all__ = ["MOST_WEIGHT", "OUT", "ArrayPolicy", "best_first", "every"]

CutT = TypeVar("CutT")
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_WEIGHT = 1e6
"""Any more would leave nothing of the other scorers, or of the sum."""
OUT = -1.0
"""Below every score: a candidate that was filtered out, or taken."""


@dataclass(frozen=True)
class ArrayPolicy(Generic[CutT]):
    """A named way to score; see `daitn.policy.pipeline.Policy`."""

    name: str
    scorers: Mapping[str, Callable[[CutT, Flags], Floats | float]]
    """By name; given which candidates passed, each gives a term in [0, 1] per candidate, or one
    for all of them. Terms of those that did not pass may be anything finite."""
    weights: Mapping[str, float]

    def weighted(self, preferences: Sequence[Preference]) -> dict[str, float]:
        """The weights under these preferences. Raises `InvalidInput` for an unknown scorer or a
        weight that is no number from 0 to `MOST_WEIGHT`."""
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
                    continue  # For all candidates: it changes no sum.
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
    """Whether all passed; in a quarter of the time that `all` takes."""
    return int(np.count_nonzero(passes)) == len(passes)


def best_first(scores: Floats, most: int, near: float, rng: Rng) -> list[int]:
    """The positions of the `most` best candidates with scores of at least 0, best first.

    The first one is drawn among all that are within `near` of the best: scores are estimates, and
    gateways that all take the same first one would crowd it. The others follow by score.
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
