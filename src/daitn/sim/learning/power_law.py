"""Synthetic truth: learning curves per label follow power laws of the examples seen.

A model has seen `m` examples of each *pool* of records (one data set, or several with the same
records). A visit of n examples loses its warm-up, `n' = n - w (1 - exp(-n / w))`, then

    m_p <- m_p + n'                                      for the pool p of the data set
    m_q <- m_q (1 + n' / f)^(-phi (1 - sim(q, p)))       for all others: they are forgotten
    r_l <- r_l d + (1 - d) share_pl,  d = exp(-n' / b)   share of label l in what was seen lately

Repeated records teach less and less: `U + U R (1 - exp(-(m / U - 1) / R))` of a pool of U records
(Muennighoff et al., "Scaling data-constrained language models", NeurIPS 2023). The evidence of all
pools adds up, weighted by how each one's topic transfers to the objective (below 0: it harms), and

    value_ol = chance + (ceiling - chance) (1 - (1 + (x_ol / scale_ol)^beta)^(-alpha)) starve_l

(power laws: Hestness et al. 2017; Viering and Loog, TPAMI 2023). `starve_l` falls below 1 if label
l was seen too little lately: a classifier trained on one class only predicts that class. (McCloskey
and Cohen 1989, catastrophic interference.)

On purpose this is not the shape that any planner of this project assumes: additive evidence instead
of independent skills, power laws instead of exponentials, true transfers instead of topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daitn.objects.merging import MergeRule
from daitn.sim.learning.merging import merged_rows
from daitn.topology.arrays import Floats, Indices

__all__ = ["Growth", "PowerLaw"]

_STARVED_BELOW = 0.5
"""Share of recent examples, relative to the fair share, from which a label does not starve."""
_STARVED_LEAST = 0.02


@dataclass(frozen=True)
class Growth:
    """A pool grows at some time."""

    at_s: float
    pool: int
    records: float


@dataclass(frozen=True)
class PowerLaw:
    """P pools, S data sets, T topics, O objectives, L labels."""

    pool_of: Indices
    """(S,): two data sets of one pool hold the same records."""
    records: Floats
    """(P,): size of each pool at the start."""
    shares: Floats
    """(P, L): true label shares; rows sum to 1."""
    topic: Indices
    """(P,): true topic."""
    worth: Floats
    """(P,): what one record teaches; below 0 if labels are wrong."""
    transfer: Floats
    """(T, O): how much of a record of a topic counts for an objective."""
    alike: Floats
    """(T, T): how little training on one topic undoes another."""
    chance: Floats
    """(O,)."""
    ceiling: Floats
    """(O, L)."""
    scale: Floats
    """(O, L): examples at which the curve bends."""
    alpha: float
    beta: float
    spill: float
    """Share of an example's teaching that goes to other labels."""
    passes: float
    """R: how many repetitions teach."""
    warm_up: float
    forget: float
    """phi."""
    forget_examples: float
    """f."""
    recent_examples: float
    """b."""
    starve: float
    """Exponent: 0 if labels do not starve."""
    luck: float
    """Standard deviation of ln n' from visit to visit."""
    growths: tuple[Growth, ...] = ()

    @cached_property
    def _weights(self) -> Floats:
        """(P, O * L): what one useful record of each pool counts for each label of each test."""
        spread = (1.0 - self.spill) * self.shares + self.spill / self.shares.shape[1]
        toward = self.transfer[self.topic] * self.worth[:, None]
        weights = toward[:, :, None] * spread[:, None, :]
        return np.asarray(weights.reshape(len(self.topic), -1))

    def fresh(self, count: int) -> Floats:
        pools, labels = self.shares.shape
        models = np.zeros((count, 2 * pools + labels))
        models[:, pools : 2 * pools] = self.records
        models[:, 2 * pools :] = 1.0 / labels
        return models

    def trained(
        self,
        models: Floats,
        dataset: Indices,
        examples: Floats,
        at_s: Floats,
        rng: np.random.Generator | None,
        merged: bool = False,
    ) -> Floats:
        pools = len(self.records)
        after = models.copy()
        pool = self.pool_of[dataset]
        n = self._effective(examples)
        if rng is not None:
            n = n * np.exp(self.luck * rng.standard_normal(len(n)))
        seen = after[:, :pools]
        seen *= (1.0 + n / self.forget_examples)[:, None] ** (-self.forget * self._unlike[pool])
        rows = np.arange(len(models))
        seen[rows, pool] += n
        after[:, pools : 2 * pools] = self._sizes(after[:, pools : 2 * pools], at_s)
        keep = np.exp(-n / self.recent_examples)[:, None]
        lately = after[:, 2 * pools :]
        after[:, 2 * pools :] = lately * keep + self.shares[pool] * (1.0 - keep)
        return after

    def merged(
        self,
        base: Floats,
        models: Floats,
        shares: Floats,
        rule: MergeRule,
        moments: Floats | None,
    ) -> tuple[Floats, Floats]:
        """See `merging`. Sites are as far apart as the labels that they taught."""
        pools = len(self.records)
        lately = models[:, 2 * pools :]
        mean = np.tensordot(shares / shares.sum(), lately, axes=1)
        apart = 0.5 * np.abs(lately - mean).sum(axis=1) @ (shares / shares.sum())
        row, moments = merged_rows(base, models, shares, rule, moments, float(apart))
        row[:pools] = np.maximum(row[:pools], 0.0)
        row[pools : 2 * pools] = models[:, pools : 2 * pools].max(axis=0)
        row[2 * pools :] = np.maximum(row[2 * pools :], 1e-6)
        row[2 * pools :] /= row[2 * pools :].sum()
        return row, moments

    def values(self, models: Floats) -> Floats:
        pools = len(self.records)
        seen, size = models[:, :pools], models[:, pools : 2 * pools]
        again = np.maximum(0.0, seen / size - 1.0)
        useful = np.minimum(seen, size) + size * self.passes * (1.0 - np.exp(-again / self.passes))
        evidence = np.maximum(0.0, useful @ self._weights).reshape(len(models), *self.scale.shape)
        known = 1.0 - (1.0 + (evidence / self.scale) ** self.beta) ** (-self.alpha)
        lately = models[:, 2 * pools :]
        ratio = (lately * lately.shape[1] + _STARVED_LEAST) / _STARVED_BELOW
        fed = np.minimum(1.0, ratio) ** self.starve
        chance = self.chance[None, :, None]
        low = chance * np.minimum(1.0, fed[:, None, :] + (1.0 - min(self.starve, 1.0)))
        return np.asarray(low + (self.ceiling - chance) * known * fed[:, None, :])

    def _effective(self, examples: Floats) -> Floats:
        if self.warm_up <= 0.0:
            return examples.astype(np.float64)
        return examples - self.warm_up * (1.0 - np.exp(-examples / self.warm_up))

    def _sizes(self, sizes: Floats, at_s: Floats) -> Floats:
        if not self.growths:
            return sizes
        sizes = sizes.copy()
        for growth in self.growths:
            column = sizes[:, growth.pool]
            grown = np.maximum(column, growth.records)
            sizes[:, growth.pool] = np.where(at_s >= growth.at_s, grown, column)
        return sizes

    @cached_property
    def _unlike(self) -> Floats:
        """(P, P): row p contains 1 - sim(q, p) for every q; 0 for itself."""
        overlap = np.minimum(self.shares[:, None, :], self.shares[None, :, :]).sum(axis=2)
        unlike = 1.0 - self.alike[np.ix_(self.topic, self.topic)] * (0.5 + 0.5 * overlap)
        np.fill_diagonal(unlike, 0.0)
        return np.asarray(unlike)
