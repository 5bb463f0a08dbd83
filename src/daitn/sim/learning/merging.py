"""Merges of simulated knowledge, where there are no weights to merge.

The rule of a round is applied to rows of knowledge as if they were weights: the reduction to what
each site changed, then the outer step; only `ties` is not, see `_TIES_STRENGTH`. What sites with
different labels, or topics, learn apart does not add up as well as that: of their change, `DRIFT`
times the mean distance of a site from the others is lost (client drift; Zhao et al. 2018,
arXiv:1806.00582).
"""

from __future__ import annotations

import numpy as np

from daitn.objects.errors import InvalidInput
from daitn.objects.merging import MergeRule, OuterStep, Reduces
from daitn.topology.arrays import Floats

__all__ = ["DRIFT", "merged_rows"]

DRIFT = 0.35
"""A guess: it has not been calibrated on recorded merges."""
_TIES_STRENGTH = 1.5
"""Strength of an update made by `ties`, relative to the mean of the same updates, as far as
`benchmarks.algorithms` saw both go. Elected coordinate by coordinate, knowledge of a single site
would count in full, so that a merge of k sites would know all that they learned, k times the mean;
for weights, where sites share all coordinates, this was never observed."""


def merged_rows(
    base: Floats,
    models: Floats,
    shares: Floats,
    rule: MergeRule,
    moments: Floats | None,
    apart: float = 0.0,
) -> tuple[Floats, Floats]:
    """The merged row (W,) of `models` (K, W), and the momentum (W,) after it.

    `apart`: how far the sites' data is from their mean, from 0 to 1 (total variation). Raises
    `InvalidInput` for a rule that depends on the size of weights.
    """
    weights = shares / shares.sum()
    update = _reduced(models - base, weights, rule) * (1.0 - DRIFT * apart)
    gathered = np.zeros_like(base) if moments is None else moments
    match rule.outer:
        case OuterStep.PLAIN:
            step = rule.rate * update
        case OuterStep.MOMENTUM:
            gathered = rule.momentum * gathered + update
            step = rule.rate * (rule.momentum * gathered + update)
        case _:
            raise _unknown(rule.outer)
    return base + step, gathered


def _reduced(updates: Floats, weights: Floats, rule: MergeRule) -> Floats:
    found: Floats
    match rule.reduction:
        case Reduces.MEAN:
            found = np.tensordot(weights, updates, axes=1)
        case Reduces.MEDIAN:
            found = np.median(updates, axis=0)
        case Reduces.TIES:
            found = _TIES_STRENGTH * np.tensordot(weights, updates, axes=1)
        case _:
            raise _unknown(rule.reduction)
    return found


def _unknown(what: str) -> InvalidInput:
    return InvalidInput(
        f"the effect of {what} on knowledge is not modelled",
        field="training.algorithm",
        fix="use fedavg, diloco, median or ties, or a world whose models are trained",
    )
