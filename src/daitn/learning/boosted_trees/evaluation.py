"""Measuring boosted trees on a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daitn.learning.boosted_trees.config import BoostedTreesConfig
from daitn.learning.boosted_trees.ensemble import log_probabilities
from daitn.learning.boosted_trees.parts import TreesState
from daitn.learning.classifier.evaluation import check_metric, measured
from daitn.learning.classifier.exposure import probes
from daitn.learning.classifier.network import class_indices
from daitn.learning.classifier.table import Table
from daitn.learning.exposure import UNEXPOSED, unexposed
from daitn.learning.recipe import Measured

__all__ = ["check_metric", "measure", "scores"]


def measure(
    state: TreesState, config: BoostedTreesConfig, table: Table, test: Path, metric: str
) -> Measured:
    """Measure `metric` on the table from the file `test`; `unexposed`, on one of probes. A model
    without trees guesses the first class."""
    member: NDArray[np.bool_] | None = None
    if metric == UNEXPOSED:
        table, member = probes(table, test)
    if state.columns:
        table = table.arranged(state.columns, test)
    targets = class_indices(table.labels, config.classes, test).numpy()
    scored = scores(state, config, table.features)
    if member is not None:
        return unexposed(-scored[np.arange(len(targets)), targets], member)
    right = scored.argmax(axis=1) == targets
    return measured(metric, right, targets, config.classes)


def scores(
    state: TreesState, config: BoostedTreesConfig, features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(records, classes): the logarithms of the classes' probabilities."""
    return log_probabilities(state.trees.margins(features, config.groups))
