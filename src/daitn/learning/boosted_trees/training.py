"""Growing trees on one site's table: gradient boosting that continues from the model's scores.

Friedman 2001, "Greedy function approximation: a gradient boosting machine"; by xgboost (Chen and
Guestrin 2016, arXiv:1603.02754), which gets records in coarse bins and the scores of the trees so
far, and no file that came from elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daitn.learning.boosted_trees.bins import BINS, edges_of, in_bins, threshold_of
from daitn.learning.boosted_trees.config import BoostedTreesConfig
from daitn.learning.boosted_trees.ensemble import END, Ensemble, log_probabilities
from daitn.learning.boosted_trees.parts import MOST_LEAF, TreesState
from daitn.learning.boosted_trees.xgboost_file import read_model
from daitn.learning.classifier.config import REPORTS
from daitn.learning.classifier.network import class_indices
from daitn.learning.classifier.scale import merged, scale_of, shared
from daitn.learning.classifier.table import Table
from daitn.learning.recipe import Progress, Trained
from daitn.learning.weight_noise import normal
from daitn.objects.errors import InvalidInput

__all__ = ["train"]

_NOISE = 1.0
"""Deviation of the noise on a leaf, relative to one record's effect on the smallest possible
leaf."""
_ROUNDING = 2.0**-12
"""Likewise, relative to the leaf, as for weights."""


def train(
    state: TreesState,
    config: BoostedTreesConfig,
    table: Table,
    data: Path,
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
    least_records: int,
) -> Trained:
    """Add trees to `state`: as many as `examples` makes passes over the records of the table
    `data`. With less than one pass, train on a subset drawn by `seed`."""
    started = time.perf_counter()
    if examples < 1:
        raise InvalidInput(f"{examples} examples", field="examples", fix="train on at least one")
    table = table.arranged(state.columns, data) if state.columns else table
    state.columns = table.columns
    targets = class_indices(table.labels, config.classes, data).numpy()
    features = shared(table.features, least_records)
    state.standard = merged(state.standard, scale_of(features, examples))
    edges = edges_of(state.standard)
    margins = state.trees.margins(table.features, config.groups)
    drawn = _drawn(len(targets), examples, seed)
    reports = _Reports(config, examples, watch)
    rounds = _rounds(config, len(state.trees), examples / len(drawn))
    least_weight = _least_weight(config, least_records * _repeated(table))
    bins = in_bins(features, edges)[drawn]
    grown = _grow(config, bins, targets[drawn], margins[drawn], rounds, least_weight, reports)
    split = grown.column != END
    grown.threshold[split] = threshold_of(grown.column, grown.threshold, edges)[split]
    _blur(grown, config, least_weight, seed)
    state.trees = Ensemble.joined([state.trees, grown])
    return Trained(examples=examples, seconds=time.perf_counter() - started)


def _drawn(records: int, examples: int, seed: int) -> NDArray[np.int64]:
    if examples >= records:
        return np.arange(records)
    return np.sort(np.random.default_rng(seed).permutation(records)[:examples])


def _rounds(config: BoostedTreesConfig, trees: int, passes: float) -> int:
    """Number of rounds. Raises `InvalidInput` for a model that is full."""
    room = (config.most_trees - trees) // config.groups
    if room < 1:
        raise InvalidInput(
            f"the model has {trees} trees but may have at most {config.most_trees}",
            field="model.config.most_trees",
            fix="raise it, or lower rounds",
        )
    return min(room, max(1, round(config.rounds * passes)))


def _repeated(table: Table) -> float:
    """How often records of a label repeat, at most: a leaf needs that many times more."""
    all_of, different = Counter(table.labels), table.different()
    return max(all_of[label] / count for label, count in different.items())


def _least_weight(config: BoostedTreesConfig, records: float) -> float:
    """Upper bound of the summed second derivatives (xgboost's `min_child_weight`) in a leaf of
    this many records: p (1 - p) per record for two classes, twice that for more. A leaf with
    that sum has at least that many records."""
    return records * (0.25 if config.groups == 1 else 0.5)


class _Reports:
    """Reports progress, with the mean of losses clipped at that of a guess."""

    def __init__(
        self, config: BoostedTreesConfig, examples: int, watch: Callable[[Progress], None]
    ) -> None:
        self._guess = math.log(len(config.classes))
        self._examples = examples
        self._watch = watch
        self._done = 0
        self._since: list[float] = []

    def add(self, margins: NDArray[np.float32], targets: NDArray[np.int64], rounds: int) -> None:
        """Add a round of `rounds` that begins with these scores."""
        losses = -log_probabilities(margins)[np.arange(len(targets)), targets]
        self._since.append(float(losses.clip(0.0, self._guess).mean()))
        before, self._done = self._done, self._done + 1
        if before * REPORTS // rounds != self._done * REPORTS // rounds:
            self._watch(
                Progress(
                    examples=self._examples * self._done // rounds,
                    of_examples=self._examples,
                    loss=sum(self._since) / len(self._since),
                    sensitivity=self._guess * self._examples / len(targets),
                )
            )
            self._since = []


def _grow(
    config: BoostedTreesConfig,
    bins: NDArray[np.float32],
    targets: NDArray[np.int64],
    margins: NDArray[np.float32],
    rounds: int,
    least_weight: float,
    reports: _Reports,
) -> Ensemble:
    """New trees, with numbers of edges as thresholds."""
    from daitn.learning.boosted_trees.engine import xgboost

    several = config.groups > 1
    settings: dict[str, Any] = {
        "objective": "multi:softprob" if several else "binary:logistic",
        "base_score": 0.5,
        "max_depth": config.depth,
        "learning_rate": config.learning_rate,
        "reg_lambda": config.l2,
        "min_child_weight": least_weight,
        "tree_method": "hist",
        "max_bin": BINS,
        # One thread gives one model, and needs no pool, which a forked process would lack.
        "nthread": 1,
        "verbosity": 0,
    }
    if several:
        settings["num_class"] = config.groups
    matrix = xgboost.DMatrix(bins, label=targets, nthread=1)
    matrix.set_base_margin(margins if several else margins[:, 0])
    booster = xgboost.Booster(settings, [matrix])
    for number in range(rounds):
        reports.add(margins, targets, rounds)
        booster.update(matrix, number)
        margins = booster.predict(matrix, output_margin=True).reshape(margins.shape)
    return read_model(bytes(booster.save_raw("json")), config.depth).trees


def _blur(trees: Ensemble, config: BoostedTreesConfig, least_weight: float, seed: int) -> None:
    """Add noise to the leaves, in place, as `daitn.learning.weight_noise` does to weights."""
    moved = config.learning_rate / (least_weight + config.l2)
    leaves = trees.leaf
    digest = hashlib.blake2b(str(seed).encode(), digest_size=32)
    digest.update(np.ascontiguousarray(leaves).tobytes())
    noise = normal(digest.digest(), leaves.size).reshape(leaves.shape)
    blurred = leaves + noise * (_NOISE * moved + _ROUNDING * np.abs(leaves))
    leaves[:] = np.where(trees.reached(), blurred.clip(-MOST_LEAF, MOST_LEAF), 0.0)
