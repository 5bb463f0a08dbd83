"""Metrics of a node's privacy budgets; its roles report the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daitn.objects.descriptors import NodeDescriptor
from daitn.tools.monitoring.metrics import Sample, gauge

__all__ = ["METRICS", "budgets"]

BUDGET: Final = gauge(
    "daitn_dataset_privacy_visits_left",
    "Approximate number of visits left in a data set's privacy budget, as published by the site.",
    "dataset",
)
METRICS: Final = (BUDGET,)


def budgets(node: NodeDescriptor) -> Iterator[Sample]:
    """See `Measured`."""
    for data in node.datasets:
        if data.private_visits_left is not None:
            yield BUDGET.at(data.private_visits_left, data.name)
