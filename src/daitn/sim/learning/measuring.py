"""Simulated measurements: true values with the noise of finite test sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.sim.learning.learner import Examined
from daitn.topology.arrays import Floats

__all__ = ["LEAST_ITEMS", "MeasuredValues", "exact", "measured"]

LEAST_ITEMS = 10
"""Verifiers report a label's value only from this many items on; fewer would reveal single
items."""


@dataclass(frozen=True)
class MeasuredValues:
    """One objective's measurement."""

    value: float
    standard_error: float
    by_label: dict[str, float]


def measured(test: Examined, values: Floats, rng: np.random.Generator | None) -> MeasuredValues:
    """Measure a test: each item of a label is right with the label's value.

    `values` is (L,) or longer. Without `rng` the values count as measured already, on these items.
    """
    items = np.array(test.items)
    true = values[: len(items)]
    if rng is not None:
        true = rng.binomial(items, np.clip(true, 0.0, 1.0)) / items
    value = float((true * items).sum()) / test.total
    return MeasuredValues(
        value=value,
        standard_error=float(np.sqrt(max(0.0, value * (1.0 - value)) / test.total)),
        by_label={
            label: float(share)
            for label, share, count in zip(test.labels, true, items, strict=True)
            if count >= LEAST_ITEMS and label not in test.untold
        },
    )


def exact(tests: tuple[Examined, ...], values: Floats) -> Floats:
    """(N, objectives) from (N, objectives, labels): each test's true value."""
    totals = [
        values[:, number, : len(test.items)] @ np.array(test.items, dtype=np.float64) / test.total
        for number, test in enumerate(tests)
    ]
    return np.stack(totals, axis=1)
