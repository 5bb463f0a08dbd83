"""Merging boosted trees that sites added to the same ensemble: bagging.

The merged model has the trees of all sites, each tree's leaves by its site's share, so that its
scores are the mean of the sites' scores: federated averaging, of functions in place of weights.
Flower's and NVIDIA FLARE's bagging of xgboost unite trees likewise, with equal shares or none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from daitn.learning.aggregation.merging import check_parts, unfit
from daitn.learning.boosted_trees.config import BoostedTreesConfig
from daitn.learning.boosted_trees.ensemble import END, Ensemble, unites
from daitn.learning.boosted_trees.parts import COLUMNS, MOST_LEAF, TREES, TreesState, read, write
from daitn.learning.classifier.merging import pooled, usual_columns
from daitn.learning.recipe import MergeTask
from daitn.objects.errors import DaitnError, InvalidInput

__all__ = ["merge"]


def merge(task: MergeTask, config: BoostedTreesConfig, out: Path) -> None:
    """See `Merging.merge`."""
    if not unites(task.rule):
        raise InvalidInput(
            "boosted trees are merged as a weighted union; no other reduction or outer step "
            "applies",
            field="training.algorithm",
            fix="use the algorithm fedavg or sequential",
        )
    base = read(Path(task.base), config)
    for number, model in enumerate(task.models):
        check_parts(number, Path(model), Path(task.base), TREES, COLUMNS)
    models = [_read(number, Path(model), base, config) for number, model in enumerate(task.models)]
    columns = base.columns or usual_columns([model.columns for model in models])
    models = [_arranged(number, model, columns) for number, model in enumerate(models)]
    shares = np.array(task.shares) * task.rule.rate / sum(task.shares)
    new = [
        _weighed(model.trees.part(slice(len(base.trees), None)), share)
        for model, share in zip(models, shares, strict=True)
    ]
    trees = Ensemble.joined([base.trees, *new])
    if len(trees) > config.most_trees:
        raise InvalidInput(
            f"the merged model has {len(trees)} trees but may have at most {config.most_trees}",
            field="model.config.most_trees",
            fix="raise it, or lower rounds",
        )
    scales = [model.standard for model in models if model.standard is not None]
    standard = pooled(
        base.standard, scales, [base.standard] * len(scales), task.shares, task.single
    )
    write(TreesState(columns=columns, trees=trees, standard=standard), out)


def _read(number: int, model: Path, base: TreesState, config: BoostedTreesConfig) -> TreesState:
    try:
        state = read(model, config)
    except DaitnError as error:
        raise unfit(number, error.problem) from None
    if not state.columns or state.standard is None or len(state.trees) <= len(base.trees):
        raise unfit(number, "it has not learned anything")
    if base.columns and state.columns != base.columns:
        raise unfit(number, "it reads other columns")
    if not state.trees.part(slice(len(base.trees))).equals(base.trees):
        raise unfit(number, "its first trees are not those of the model that it was trained from")
    return state


def _arranged(number: int, state: TreesState, columns: tuple[str, ...]) -> TreesState:
    """A model of these columns, in this order: until a model has columns, each site has its own."""
    if state.columns == columns:
        return state
    if sorted(state.columns) != sorted(columns):
        raise unfit(number, "it reads other columns")
    assert state.standard is not None
    scale = state.standard
    at = [state.columns.index(column) for column in columns]
    place = np.array([columns.index(column) for column in state.columns], np.int32)
    column = state.trees.column
    trees = state.trees.but(column=np.where(column == END, END, place[column]).astype(np.int32))
    standard = type(scale)(mean=scale.mean[at], var=scale.var[at], count=scale.count[at])
    return TreesState(columns=columns, trees=trees, standard=standard)


def _weighed(trees: Ensemble, share: float) -> Ensemble:
    leaf = (trees.leaf * np.float32(share)).clip(-MOST_LEAF, MOST_LEAF)
    return trees.but(leaf=leaf.astype(np.float32))
