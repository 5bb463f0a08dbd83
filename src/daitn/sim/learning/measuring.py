"""What verification units make of a model: true values with the noise of finite test sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.sim.learning.learner import Floats, TestItems

__all__ = ["LEAST_ITEMS", "Measured", "exact", "measured"]

LEAST_ITEMS = 10
"""Verifiers tell the value of a label from so many items on; fewer would tell of single items."""


@dataclass(frozen=True)
class Measured:
    """One objective's measurement."""

    value: float
    standard_error: float
    by_label: dict[str, float]


def measured(test: TestItems, values: Floats, rng: np.random.Generator) -> Measured:
    """Each item of a label is right with the label's true value, `values` being (L,)."""
    right = rng.binomial(test.items, np.clip(values, 0.0, 1.0))
    value = float(right.sum()) / test.total
    return Measured(
        value=value,
        standard_error=float(np.sqrt(value * (1.0 - value) / test.total)),
        by_label={
            label: float(count) / items
            for label, count, items in zip(test.labels, right, test.items, strict=True)
            if items >= LEAST_ITEMS
        },
    )


def exact(tests: tuple[TestItems, ...], values: Floats) -> Floats:
    """(N, objectives) from (N, objectives, labels): each test's true value."""
    items = np.array([test.items for test in tests], dtype=np.float64)
    weighted: Floats = (np.clip(values, 0.0, 1.0) * items).sum(axis=2) / items.sum(axis=1)
    return weighted
