"""Filter, score, pick: this one pipeline makes every decision of DA-ITN.

Candidates are rows of arrays, so that many thousands are compared at once. Filters say which rows
pass; scorers give an array of terms; the weights are the profile's, changed by preferences. Rows
must be ordered by id, so that ties break by id. A policy sees only what it is given (and, if it
draws, the random source), so a recorded decision can be reproduced exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from daitn.objects.decisions import Decision, Rejection, Scored
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.objects.randomness import Rng
from daitn.topology.arrays import Flags, Floats

__all__ = ["MOST_WEIGHT", "OUT", "Policy", "best_first", "every", "weights_under"]

CutT = TypeVar("CutT")

MOST_WEIGHT = 1e6
"""A larger weight would drown the other scorers or overflow the sum."""
OUT = -1.0
"""Below every score: marks a candidate that was filtered out or already taken."""
_RANKED = 20
"""Candidates kept in a decision's ranking."""


@dataclass(frozen=True)
class Policy(Generic[CutT]):
    """A named decision policy. All its parts are pure functions of the cut, its input."""

    name: str
    scorers: Mapping[str, Callable[[CutT, Flags], Floats | float]]
    """By name. Each gets the flags of the candidates that passed, and gives one term in [0, 1] per
    candidate or one for all. Terms of candidates that failed may be anything finite."""
    weights: Mapping[str, float]
    """The profile: a weight for every scorer."""

    def weighted(self, preferences: Sequence[Preference]) -> dict[str, float]:
        """The weights under these preferences. Raises `InvalidInput`, see `weights_under`."""
        return weights_under(self.name, self.weights, preferences, "prefer.{scorer}")

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

    def decision(
        self,
        cut: CutT,
        scores: Floats,
        identify: Callable[[int], str],
        *,
        chosen: str | None,
        rejections: tuple[Rejection, ...],
        snapshot_version: int,
        now_s: float,
        most: int = _RANKED,
    ) -> Decision:
        """The decision with its ranking and all terms, for people.

        `scores` as returned by `scores`; `identify` names a row.
        """
        passes = scores >= 0.0
        terms = {
            name: np.broadcast_to(scorer(cut, passes), passes.shape)
            for name, scorer in self.scorers.items()
        }
        order = np.argsort(-scores, kind="stable")[: min(most, int(np.count_nonzero(passes)))]
        return Decision(
            policy=self.name,
            chosen=chosen,
            ranking=tuple(
                Scored(
                    candidate=identify(row),
                    score=float(scores[row]),
                    terms={name: float(term[row]) for name, term in terms.items()},
                )
                for row in order.tolist()
            ),
            rejections=rejections,
            snapshot_version=snapshot_version,
            at_s=now_s,
        )


def weights_under(
    policy: str, weights: Mapping[str, float], preferences: Sequence[Preference], field: str
) -> dict[str, float]:
    """The profile's weights, with those of the preferences in their place.

    `field` names a preference in errors, with `{index}` and `{scorer}`. Raises `InvalidInput` for
    an unknown scorer or a weight outside 0 to `MOST_WEIGHT`.
    """
    result = dict(weights)
    for index, preference in enumerate(preferences):
        where = field.format(index=index, scorer=preference.scorer)
        if preference.scorer not in result:
            raise InvalidInput(
                f"{policy} has no scorer {preference.scorer!r}",
                field=where,
                fix=f"use one of {', '.join(sorted(result))}",
            )
        if not 0.0 <= preference.weight <= MOST_WEIGHT:
            raise InvalidInput(
                f"a weight is not {preference.weight}",
                field=where,
                fix=f"give a number from 0 to {MOST_WEIGHT:g}",
            )
        result[preference.scorer] = preference.weight
    return result


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
