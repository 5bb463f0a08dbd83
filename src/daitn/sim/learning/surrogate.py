"""Between recorded routes: predicts the effect of a visit from its effect on other models.

Kernel ridge regression (a Gaussian process's mean; Rasmussen and Williams 2006, chapter 2) over the
recorded visits of one split. Features of a visit are the measurements before it, how much of each
label and of each site the model saw lately and ever, and the site and amount of the visit itself.
Two regressions share the kernel and are averaged: one of the values after the visit, which does not
drift over long routes, and one of their change. It knows nothing of skills, topics or learning
curves: it does not have the shape that any planner of this project assumes.

Luck is drawn from the leave-one-out residuals of the recorded visits most like the new one, for all
objectives and labels of one visit together, so that their correlations are preserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daitn.topology.arrays import Floats, Indices

__all__ = ["FADES", "Surrogate", "SurrogateVisits", "fitted", "seen_after"]

FADES = (100.0, 500.0, np.inf)
"""Examples after which earlier ones count only 1/e as lately seen."""
_WEIGHTS = (0.5, 0.5, 0.3, 0.5, 0.3, 0.5)
"""Weights in the distance of values, labels seen, sites seen, and the visit's site, amount and
labels."""
_RIDGE = 0.05
_LINEAR = 0.05
"""Weight of the linear kernel beside the radial one: it extrapolates trends beyond the
recording."""
_OF_VALUES = 0.7
"""Weight of the regression of values; the rest is that of changes."""
_VALUE_SPREAD, _SITE_SPREAD = 0.25, 0.5
_UNIT_EXAMPLES = 20.0
_MARGIN = 0.03
"""Keeps the logits of 0 and 1 finite."""
_MOST_LOGIT = 3.5
_NEIGHBOURS = 20
_LUCK = 1.5
"""Leave-one-out residuals are too small for visits with neighbours on the same route. With this
factor, four of five held-out values lie between the tenth and the ninetieth percentile."""


@dataclass(frozen=True)
class SurrogateVisits:
    """N visits: `seen` (N, fades x sites) and `values` (N, D) before each, and the visits
    themselves."""

    values: Floats
    seen: Floats
    site: Indices
    examples: Floats

    def take(self, rows: NDArray[np.bool_]) -> SurrogateVisits:
        return SurrogateVisits(
            self.values[rows], self.seen[rows], self.site[rows], self.examples[rows]
        )


@dataclass(frozen=True)
class Surrogate:
    """A fitted regression."""

    shares: Floats
    """(S, L): labels of each site."""
    most_examples: float
    """Visits are capped at the largest recorded amount."""
    middle: tuple[Floats, ...]
    spread: tuple[Floats, ...]
    known: tuple[Floats, ...]
    of_values: Floats
    of_changes: Floats
    residuals: Floats
    """(recorded visits, D): logits."""

    def after(self, visits: SurrogateVisits, rng: np.random.Generator | None) -> Floats:
        """(N, D): values after each visit; without `rng` the expected ones."""
        similar = self._similar(visits)
        logits = _OF_VALUES * (similar @ self.of_values)
        logits += (1.0 - _OF_VALUES) * (_logit(visits.values) + similar @ self.of_changes)
        if rng is not None:
            nearest = np.argpartition(-similar, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
            drawn = nearest[
                np.arange(len(nearest)), rng.integers(0, nearest.shape[1], len(nearest))
            ]
            logits = logits + _LUCK * self.residuals[drawn]
        return _value(np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT))

    def _similar(self, visits: SurrogateVisits) -> Floats:
        features = _features(visits, self.shares, self.most_examples)
        scaled = tuple(
            (feature - middle) / spread
            for feature, middle, spread in zip(features, self.middle, self.spread, strict=True)
        )
        return _kernel(scaled, self.known)


def fitted(visits: SurrogateVisits, after: Floats, shares: Floats) -> Surrogate:
    """Fit a surrogate to recorded visits; `after` (N, D) holds the values after each."""
    most_examples = float(visits.examples.max())
    features = _features(visits, shares, most_examples)
    middle = tuple(feature.mean(axis=0) for feature in features)
    spread = tuple(_fixed_spread(number, feature) for number, feature in enumerate(features))
    known = tuple((f - m) / s for f, m, s in zip(features, middle, spread, strict=True))
    kernel = _kernel(known, known)
    inverse = np.linalg.inv(kernel + _RIDGE * np.eye(len(kernel)))
    before, end = _logit(visits.values), _logit(after)
    of_values, of_changes = inverse @ end, inverse @ (end - before)
    # Leave-one-out in closed form (Rasmussen and Williams 2006, equation 5.12).
    mixed = _OF_VALUES * of_values + (1.0 - _OF_VALUES) * of_changes
    residuals = mixed / np.diag(inverse)[:, None]
    return Surrogate(shares, most_examples, middle, spread, known, of_values, of_changes, residuals)


def seen_after(seen: Floats, site: Indices, examples: Floats) -> Floats:
    """(N, fades x S): examples of each site that count as lately seen, after one more visit."""
    rows = np.arange(len(seen))
    after = seen.reshape(len(seen), len(FADES), -1).copy()
    for number, fade in enumerate(FADES):
        if np.isinf(fade):
            after[rows, number, site] += examples
            continue
        kept = np.exp(-examples / fade)
        after[:, number] *= kept[:, None]
        after[rows, number, site] += fade * (1.0 - kept)
    return after.reshape(len(seen), -1)


def _features(visits: SurrogateVisits, shares: Floats, most_examples: float) -> tuple[Floats, ...]:
    examples = np.minimum(visits.examples, most_examples)
    seen = visits.seen.reshape(len(visits.site), len(FADES), -1)
    labels = np.log1p(np.einsum("nfs,sl->nfl", seen, shares) / _UNIT_EXAMPLES)
    sites = np.log1p(seen / _UNIT_EXAMPLES)
    return (
        visits.values,
        labels.reshape(len(labels), -1),
        sites.reshape(len(sites), -1),
        np.eye(len(shares))[visits.site],
        np.log(np.maximum(examples, 1.0))[:, None],
        np.log1p(examples[:, None] * shares[visits.site] / _UNIT_EXAMPLES),
    )


def _fixed_spread(number: int, feature: Floats) -> Floats:
    """Values and sites keep fixed units; everything else is scaled by its standard deviation."""
    if number == 0:
        return np.full(feature.shape[1], _VALUE_SPREAD)
    if number == 3:
        return np.full(feature.shape[1], _SITE_SPREAD)
    return np.asarray(np.maximum(feature.std(axis=0), 1e-3))


def _kernel(one: Sequence[Floats], other: Sequence[Floats]) -> Floats:
    distance = np.zeros((len(one[0]), len(other[0])))
    linear = np.full_like(distance, _LINEAR)
    for left, right, weight in zip(one, other, _WEIGHTS, strict=True):
        share = weight**2 / left.shape[1]
        product = left @ right.T
        linear += _LINEAR * share * product
        square = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :]
        distance += share * np.maximum(0.0, square - 2.0 * product)
    return np.asarray(np.exp(-0.5 * distance) + linear)


def _logit(values: Floats) -> Floats:
    return np.asarray(np.log((values + _MARGIN) / (1.0 + _MARGIN - values)))


def _value(logits: Floats) -> Floats:
    odds = np.exp(logits)
    values = ((1.0 + _MARGIN) * odds - _MARGIN) / (1.0 + odds)
    return np.asarray(np.clip(values, 0.0, 1.0))
