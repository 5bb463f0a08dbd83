"""What a node tells of its data sets' budgets; its roles tell the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daitn.objects.descriptors import NodeDescriptor
from daitn.tools.monitoring.metrics import Sample, gauge

__all__ = ["METRICS", "budgets"]

BUDGET: Final = gauge(
    "daitn_dataset_privacy_visits_left",
    "About how many visits a data set's privacy budget still allows, as the site publishes it.",
    "dataset",
)
METRICS: Final = (BUDGET,)


def budgets(node: NodeDescriptor) -> Iterator[Sample]:
    """See `Measured`."""
    for data in node.datasets:
        if data.private_visits_left is not None:
            yield BUDGET.at(data.private_visits_left, data.name)
