"""Reads and writes xgboost's JSON model files, without xgboost. The schema is xgboost's own
(`doc/model.schema` of its repository). Only fields that affect scores are read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import numpy as np

from daitn.learning.boosted_trees.config import MOST_DEPTH, MOST_TREES
from daitn.learning.boosted_trees.ensemble import END, Ensemble
from daitn.objects.errors import Corrupt, InvalidInput

__all__ = ["MOST_BYTES", "Read", "read_model", "written"]

MOST_BYTES = 512 << 20
_MOST_NODES = 1 << 20
_MOST_VALUE = float(np.finfo(np.float32).max)
_ROOTLESS = 2**31 - 1
"""The parent of a root."""
_BINARY = ("binary:logistic",)
_SEVERAL = ("multi:softprob", "multi:softmax")

_Integers = Annotated[tuple[int, ...], msgspec.Meta(max_length=_MOST_NODES)]
_Numbers = Annotated[tuple[float, ...], msgspec.Meta(max_length=_MOST_NODES)]
_Text = Annotated[str, msgspec.Meta(max_length=10_000)]
_Texts = Annotated[tuple[_Text, ...], msgspec.Meta(max_length=100_000)]


class _Tree(msgspec.Struct, frozen=True):
    left_children: _Integers
    right_children: _Integers
    split_indices: _Integers
    split_conditions: _Numbers
    """Thresholds, and values of leaves."""
    default_left: Annotated[tuple[int | bool, ...], msgspec.Meta(max_length=_MOST_NODES)]
    split_type: _Integers = ()


class _Trees(msgspec.Struct, frozen=True):
    trees: Annotated[tuple[_Tree, ...], msgspec.Meta(max_length=MOST_TREES)]
    tree_info: Annotated[tuple[int, ...], msgspec.Meta(max_length=MOST_TREES)]


class _Booster(msgspec.Struct, frozen=True):
    model: _Trees
    name: str = "gbtree"


class _Parameters(msgspec.Struct, frozen=True):
    base_score: _Text
    num_class: _Text
    num_feature: _Text


class _Objective(msgspec.Struct, frozen=True):
    name: str


class _Learner(msgspec.Struct, frozen=True):
    gradient_booster: msgspec.Raw
    learner_model_param: _Parameters
    objective: _Objective
    feature_names: _Texts = ()
    attributes: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True):
    learner: _Learner


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A model from xgboost."""

    columns: tuple[str, ...]
    """Their names; empty if the file names none."""
    classes: tuple[str, ...]
    """As named by this project's files, or else their numbers."""
    trees: Ensemble
    """The base score is a tree without decisions."""


def read_model(data: bytes, depth: int = 0) -> Read:
    """Read a file; into trees of a given depth, or of their own.

    Raises `InvalidInput` for a model of a kind that boosted trees are not, and `Corrupt` for a file
    that is none of xgboost's, or whose trees are none.
    """
    try:
        learner = msgspec.json.decode(data, type=_File).learner
        booster = msgspec.json.decode(learner.gradient_booster, type=_Kind).name
        if booster != "gbtree":
            raise InvalidInput(
                f"it uses the booster {booster[:50]!r}", field="booster", fix="train it with gbtree"
            )
        model = msgspec.json.decode(learner.gradient_booster, type=_Booster).model
        classes = int(learner.learner_model_param.num_class)
        columns = int(learner.learner_model_param.num_feature)
        begin = [float(n) for n in learner.learner_model_param.base_score.strip("[]").split(",")]
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(
            f"it is not a model in xgboost's JSON format: {error}",
            field="model.json",
            fix="save it with `booster.save_model('model.json')`",
        ) from None
    groups = _groups(learner.objective.name, classes)
    if len(model.trees) != len(model.tree_info) or not all(
        0 <= group < groups for group in model.tree_info
    ):
        raise _no_tree("a tree is of a class that is not there")
    if learner.feature_names and len(learner.feature_names) != columns:
        raise _no_tree("not all columns are named")
    depth = depth or max((_depth(tree) for tree in model.trees), default=1)
    trees = Ensemble.empty(depth, len(model.trees))
    for number, (tree, group) in enumerate(zip(model.trees, model.tree_info, strict=True)):
        trees.group[number] = group
        _settle(tree, trees, number, columns)
    return Read(
        columns=learner.feature_names,
        classes=_classes(learner.attributes, max(2, classes)),
        trees=Ensemble.joined([*_beginning(begin, groups, depth), trees]),
    )


class _Kind(msgspec.Struct, frozen=True):
    name: str


def _groups(objective: str, classes: int) -> int:
    if objective in _BINARY and classes in (0, 1):
        return 1
    if objective in _SEVERAL and 2 < classes <= 1000:
        return classes
    raise InvalidInput(
        f"it was trained with {objective[:50]!r} for {classes} classes",
        field="objective",
        fix=f"train it with {', '.join((*_BINARY, *_SEVERAL))}; the latter for more than two",
    )


def _classes(attributes: dict[str, str], count: int) -> tuple[str, ...]:
    try:
        named = msgspec.json.decode(attributes.get("classes", ""), type=tuple[str, ...])
    except msgspec.DecodeError:
        named = ()
    return named if len(named) == count else tuple(map(str, range(count)))


def _beginning(base_scores: list[float], groups: int, depth: int) -> Iterator[Ensemble]:
    """The base scores as trees: a probability for one group; for several groups scores, of which
    only the differences count."""
    scores = base_scores if len(base_scores) == groups else base_scores * groups
    if len(scores) != groups or not all(map(math.isfinite, scores)):
        raise _no_tree("`base_score` is not a number for each class")
    if groups == 1:
        if not 0.0 < scores[0] < 1.0:
            raise _no_tree("`base_score` is not a probability")
        scores = [math.log(scores[0] / (1.0 - scores[0]))]
    else:
        scores = [score - scores[0] for score in scores]
    for group, score in enumerate(scores):
        if score:
            tree = Ensemble.empty(depth, 1)
            tree.group[0], tree.leaf[0, 0] = group, score
            yield tree


def _depth(tree: _Tree) -> int:
    """Depth of a tree. Raises `Corrupt` for one that is too deep, or cyclic."""
    nodes, depth = len(tree.left_children), 0
    level = [0]
    while True:
        inner = [node for node in level if 0 <= node < nodes and tree.left_children[node] != END]
        if not inner:
            return max(1, depth)
        depth += 1
        if depth > MOST_DEPTH:
            raise _no_tree(f"a tree is deeper than {MOST_DEPTH}")
        level = [
            child
            for node in inner
            for child in (tree.left_children[node], *tree.right_children[node : node + 1])
        ]


def _settle(tree: _Tree, into: Ensemble, number: int, columns: int) -> None:
    """Write a tree into its arrays. Raises `Corrupt` for one that does not fit, or is not a
    tree."""
    nodes = len(tree.left_children)
    if nodes == 0 or any(
        len(each) != nodes
        for each in (
            tree.right_children,
            tree.split_indices,
            tree.split_conditions,
            tree.default_left,
        )
    ):
        raise _no_tree("a tree has lists of different lengths")
    if any(tree.split_type):
        raise InvalidInput(
            "a tree has categorical splits", field="split_type", fix="train it on numbers"
        )
    splits = into.column.shape[1]
    ahead = [(0, 0)]
    while ahead:
        node, at = ahead.pop()
        if not 0 <= node < nodes or not abs(tree.split_conditions[node]) <= _MOST_VALUE:
            raise _no_tree("a tree leads nowhere, or has a value that is too large")
        left, right = tree.left_children[node], tree.right_children[node]
        if left == END and right == END:
            while at < splits:
                at = 2 * at + 1
            into.leaf[number, at - splits] = tree.split_conditions[node]
            continue
        column = tree.split_indices[node]
        if at >= splits or not 0 <= column < columns:
            raise _no_tree("a tree is too deep, or decides by a column that is not there")
        into.column[number, at] = column
        into.threshold[number, at] = tree.split_conditions[node]
        into.missing[number, at] = bool(tree.default_left[node])
        ahead += [(left, 2 * at + 1), (right, 2 * at + 2)]


def written(trees: Ensemble, columns: tuple[str, ...], classes: tuple[str, ...]) -> bytes:
    """A model in the form that xgboost loads. Its attribute `classes` names the classes."""
    several = len(classes) > 2
    objective: dict[str, Any] = (
        {"name": "multi:softprob", "softmax_multiclass_param": {"num_class": str(len(classes))}}
        if several
        else {"name": "binary:logistic", "reg_loss_param": {"scale_pos_weight": "1"}}
    )
    groups = len(classes) if several else 1
    learner = {
        "attributes": {"classes": json.dumps(classes, ensure_ascii=False)},
        "feature_names": columns,
        "feature_types": ["float"] * len(columns),
        "gradient_booster": {
            "model": {
                "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                "iteration_indptr": [*range(0, len(trees), groups), len(trees)],
                "tree_info": trees.group.tolist(),
                "trees": [_nodes(trees, number, len(columns)) for number in range(len(trees))],
            },
            "name": "gbtree",
        },
        "learner_model_param": {
            "base_score": "5E-1",
            "boost_from_average": "0",
            "num_class": str(len(classes) if several else 0),
            "num_feature": str(len(columns)),
            "num_target": "1",
        },
        "objective": objective,
    }
    return json.dumps({"learner": learner, "version": [2, 1, 0]}, ensure_ascii=False).encode()


def _nodes(trees: Ensemble, number: int, columns: int) -> dict[str, Any]:
    splits = trees.column.shape[1]
    places, parents = [0], [_ROOTLESS]
    left: list[int] = []
    right: list[int] = []
    for node, at in enumerate(places):  # It grows as it is read.
        if at < splits and trees.column[number, at] != END:
            left.append(len(places))
            right.append(len(places) + 1)
            places += [2 * at + 1, 2 * at + 2]
            parents += [node, node]
        else:
            left.append(END)
            right.append(END)
    values = [_value(trees, number, at) for at in places]
    zeros = [0.0] * len(places)
    inner = [at < splits and bool(trees.column[number, at] != END) for at in places]
    return {
        "base_weights": zeros,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": [
            int(trees.missing[number, at]) if is_inner else 0
            for at, is_inner in zip(places, inner, strict=True)
        ],
        "id": number,
        "left_children": left,
        "loss_changes": zeros,
        "parents": parents,
        "right_children": right,
        "split_conditions": values,
        "split_indices": [
            int(trees.column[number, at]) if is_inner else 0
            for at, is_inner in zip(places, inner, strict=True)
        ],
        "split_type": [0] * len(places),
        "sum_hessian": zeros,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(columns),
            "num_nodes": str(len(places)),
            "size_leaf_vector": "1",
        },
    }


def _value(trees: Ensemble, number: int, at: int) -> float:
    """A threshold, or the value of the leaf where a branch ends early."""
    splits = trees.column.shape[1]
    if at < splits and trees.column[number, at] != END:
        return float(trees.threshold[number, at])
    while at < splits:
        at = 2 * at + 1
    return float(trees.leaf[number, at - splits])


def _no_tree(problem: str) -> Corrupt:
    return Corrupt(problem, field="model.json", fix="save the model again")
