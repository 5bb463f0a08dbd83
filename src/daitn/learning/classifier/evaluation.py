"""Measuring a classifier on a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from daitn.learning.classifier.config import METRICS, ClassifierConfig
from daitn.learning.classifier.exposure import probes
from daitn.learning.classifier.network import class_indices, forward, scaled
from daitn.learning.classifier.parts import Standard, State, settle
from daitn.learning.classifier.table import Table
from daitn.learning.exposure import UNEXPOSED, unexposed
from daitn.learning.recipe import LabelMeasured, Measured
from daitn.learning.weights import best
from daitn.objects.errors import InvalidInput

__all__ = ["check_metric", "evaluate", "measured"]


def check_metric(metric: str, recipe: str = "classifier") -> None:
    """Check a metric's name. Raises `InvalidInput` if classifiers do not support it."""
    if metric not in METRICS:
        raise InvalidInput(
            f"the recipe {recipe} does not measure {metric!r}",
            field="metric",
            fix=f"use one of {', '.join(METRICS)}",
        )


def evaluate(
    state: State, config: ClassifierConfig, table: Table, test: Path, metric: str
) -> Measured:
    """Measure `metric` on the table from the file `test`; `unexposed`, on one of probes.

    A model that has seen no data is measured too; it guesses.
    """
    member: NDArray[np.bool_] | None = None
    if metric == UNEXPOSED:
        table, member = probes(table, test)
    if state.columns:
        table = table.arranged(state.columns, test)
    settle(state, config, table.columns)
    targets = class_indices(table.labels, config.classes, test)
    standard = state.standard or _unscaled(len(table.columns))
    with torch.inference_mode():
        scores = forward(scaled(table.features, standard), state.layers)
    if member is not None:
        losses = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
        return unexposed(losses.double().numpy(), member)
    right: NDArray[np.bool_] = (best(scores) == targets).numpy()
    return measured(metric, right, targets.numpy(), config.classes)


def measured(
    metric: str,
    right: NDArray[np.bool_],
    targets: NDArray[np.int64],
    classes: tuple[str, ...],
) -> Measured:
    """The metric, given which guesses were right and the records' classes."""
    by_label = {
        name: right[targets == index]
        for index, name in enumerate(classes)
        if bool((targets == index).any())
    }
    value, error = _accuracy(right) if metric == "accuracy" else _balanced(by_label)
    return Measured(
        metric=metric,
        value=value,
        items=len(right),
        standard_error=error,
        over_labels=metric != "accuracy",
        by_label={
            name: LabelMeasured(value=float(hits.mean()), items=len(hits))
            for name, hits in by_label.items()
        },
    )


def _accuracy(right: NDArray[np.bool_]) -> tuple[float, float]:
    """The share of right guesses, and the standard error of a binomial proportion."""
    share = float(right.mean())
    return share, float(np.sqrt(share * (1 - share) / len(right)))


def _balanced(by_label: dict[str, NDArray[np.bool_]]) -> tuple[float, float]:
    """The mean of the labels' accuracies, whose errors are independent."""
    shares = [_accuracy(hits) for hits in by_label.values()]
    errors = np.array([error for _, error in shares])
    value = float(np.mean([share for share, _ in shares]))
    return value, float(np.sqrt((errors**2).sum()) / len(shares))


def _unscaled(columns: int) -> Standard:
    """The identity: a model without data does not know the scale of its columns."""
    ones = torch.ones(columns)
    return Standard(mean=torch.zeros(columns), var=ones, count=ones.double())
