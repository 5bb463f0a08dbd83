"""Measures whether a model distinguishes the records that it learned from, or canaries, from
similar ones.

The attack by a threshold on the loss (Yeom et al. 2018, "Privacy risk in machine learning",
arXiv:1709.01604; canaries: Carlini et al. 2019, "The secret sharer", arXiv:1802.08232): records
with the lower losses are taken for members, or those with the higher ones, whichever is right more
often: a model that was made to have high losses for members tells them as well. The threshold is
the median loss of all probes, so it is fitted to no answer, and a model that has learned nothing of
any one record is wrong about half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.learning.recipe import DataFault, DataProfile, Fault, Measured

__all__ = ["MEMBER", "UNEXPOSED", "halved", "mistaken", "unexposed", "without_probes"]

UNEXPOSED = "unexposed"
"""The metric: the share of probes about which the attack is wrong, 0.5 at best."""
MEMBER = "member"
"""The column or field that states whether data owners have a probe."""
_LEAST_SHARE = 0.4
"""Minimum share of members among the probes, and of others: with equal parts, guessing is wrong
about half the time."""


def halved(member: Sequence[bool] | NDArray[np.bool_]) -> bool:
    """Whether about half of the probes are members."""
    share = float(np.mean(member))
    return min(share, 1.0 - share) >= _LEAST_SHARE


def without_probes(found: DataProfile, metrics: tuple[str, ...], why_not: str) -> DataProfile:
    """A test set on which everything but `unexposed` is measured, and why."""
    return msgspec.structs.replace(
        found,
        metrics=tuple(metric for metric in metrics if metric != UNEXPOSED),
        remarks=(*found.remarks, f"{UNEXPOSED} is not measured on it: {why_not}"),
    )


def mistaken(losses: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each probe: 1 if the better attack is wrong about it, 0 if it is right, and 0.5 if its
    loss equals the threshold. It is right about a probe whose loss is not finite, so that no model
    gains by having none. Raises `DataFault` if most losses are not finite."""
    finite = np.isfinite(losses)
    if 2 * finite.sum() < len(losses):
        raise DataFault(
            Fault.SCORES_NOT_FINITE,
            "the model's losses are not finite",
            field="model",
            fix="train it again with a lower learning rate",
        )
    ranks = np.zeros(len(losses))
    ranks[finite] = np.unique(losses[finite], return_inverse=True)[1]
    attacks = (_wrong(np.where(finite, ranks, np.inf), those) for those in (member, ~member))
    return min(attacks, key=lambda wrong: float(wrong.sum()))


def _wrong(ranks: NDArray[np.float64], low: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How an attack errs that takes low ranks for `low`; it knows those whose rank is infinite."""
    known = np.isinf(ranks)
    placed = np.where(known, np.where(low, -1.0, len(ranks)), ranks)
    threshold = np.median(placed)
    wrong = np.where(placed < threshold, ~low, low).astype(np.float64)
    wrong[(placed == threshold) & ~known] = 0.5
    return wrong


def unexposed(losses: NDArray[np.float64], member: NDArray[np.bool_]) -> Measured:
    """How often the better attack by these losses is wrong about membership, with the standard
    error of a binomial proportion. Raises like `mistaken`."""
    share, items = float(mistaken(losses, member).mean()), len(losses)
    error = math.sqrt(share * (1.0 - share) / items)
    return Measured(metric=UNEXPOSED, value=share, items=items, standard_error=error)
