"""Boosted trees on disk: `trees.safetensors` and `columns.json`.

The arrays are those of `Ensemble`, as `trees.<name>`, and the coarse scale of the columns, by which
sites choose thresholds, as `standard.mean`, `standard.var` and `standard.count`. Nothing in them is
believed: they are checked here, and no other parser reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from daitn.learning.boosted_trees.config import BoostedTreesConfig
from daitn.learning.boosted_trees.ensemble import ARRAYS, END, Ensemble
from daitn.learning.classifier.parts import Standard
from daitn.objects.errors import Corrupt
from daitn.objects.models import CONFIG_FIX
from daitn.objects.text import plain

__all__ = [
    "COLUMNS",
    "MOST_LEAF",
    "TREES",
    "TreesState",
    "fresh",
    "read",
    "read_columns",
    "tree_bytes",
    "write",
]

TREES = "trees.safetensors"
COLUMNS = "columns.json"
MOST_LEAF = 1e6
"""Bound on a leaf's value, so that the sums of all trees stay finite."""
_HEADER_BYTES = 1 << 16
_MOST_COLUMNS = 100_000
_MOST_COLUMNS_BYTES = 16 << 20
_KINDS = {
    "trees.group": "U16",
    "trees.column": "I32",
    "trees.threshold": "F32",
    "trees.missing": "U8",
    "trees.leaf": "F32",
}
_SCALE = {"standard.mean": "F32", "standard.var": "F32", "standard.count": "F64"}
_BYTES = {"U8": 1, "U16": 2, "I32": 4, "F32": 4, "F64": 8}

_Arrays = dict[str, NDArray[Any]]


class BinnedColumns(msgspec.Struct, frozen=True, kw_only=True):
    """The file `columns.json`."""

    columns: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)], ...],
        msgspec.Meta(max_length=_MOST_COLUMNS),
    ] = ()


@dataclass
class TreesState:
    """A model in memory."""

    columns: tuple[str, ...]
    """Empty until the model has seen data."""
    trees: Ensemble
    standard: Standard | None
    """`None` means no site's data has set the scale yet."""


def fresh(config: BoostedTreesConfig) -> TreesState:
    """A model without trees."""
    return TreesState(columns=(), trees=Ensemble.empty(config.depth), standard=None)


def tree_bytes(depth: int) -> int:
    """The size of a tree."""
    splits = 2**depth - 1
    each = {"trees.group": 1, "trees.leaf": splits + 1}
    return sum(each.get(name, splits) * _BYTES[kind] for name, kind in _KINDS.items())


def write(state: TreesState, out: Path) -> None:
    """Write a model's parts into the folder `out`."""
    arrays = {f"trees.{name}": np.ascontiguousarray(getattr(state.trees, name)) for name in ARRAYS}
    if state.standard is not None:
        for name in ("mean", "var", "count"):
            arrays[f"standard.{name}"] = getattr(state.standard, name).contiguous().numpy()
    save_file(arrays, out / TREES)
    (out / COLUMNS).write_bytes(msgspec.json.encode(BinnedColumns(columns=state.columns)))


def read(model: Path, config: BoostedTreesConfig) -> TreesState:
    """Read a model's parts. Raises `Corrupt` for what is not a model of this configuration."""
    columns = read_columns(model / COLUMNS)
    arrays = _read_arrays(model / TREES, config, len(columns))
    trees = Ensemble(**{name: arrays[f"trees.{name}"] for name in ARRAYS})
    _check_trees(trees, config, len(columns))
    return TreesState(columns=columns, trees=trees, standard=_standard(arrays))


def read_columns(path: Path) -> tuple[str, ...]:
    """The columns that a model on disk reads. Raises `Corrupt`."""
    try:
        if path.stat().st_size > _MOST_COLUMNS_BYTES:
            raise _mismatch(f"{path.name} has more than {_MOST_COLUMNS_BYTES} bytes")
        columns = msgspec.json.decode(path.read_bytes(), type=BinnedColumns).columns
    except (OSError, msgspec.DecodeError) as error:
        raise _mismatch(f"{error}") from error
    columns = tuple(map(plain, columns))
    if len(set(columns)) < len(columns) or not all(columns):
        raise _mismatch("it names a column twice, or not at all")
    return columns


def _read_arrays(path: Path, config: BoostedTreesConfig, columns: int) -> _Arrays:
    """The arrays; their names, number types and shapes are checked before any is read."""
    most = config.most_trees * tree_bytes(config.depth) + 16 * columns + _HEADER_BYTES
    try:
        if path.stat().st_size > most:
            raise _mismatch(f"{path.name} has more than {most} bytes")
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            if names not in (set(_KINDS), {*_KINDS, *_SCALE}):
                raise _mismatch(f"{path.name} holds other arrays")
            trees = file.get_slice("trees.group").get_shape()
            if len(trees) != 1:
                raise _mismatch("trees.group is not a list")
            splits = 2**config.depth - 1
            for name in names:
                shape = [columns] if name in _SCALE else [*trees, splits]
                shape = {"trees.group": trees, "trees.leaf": [*trees, splits + 1]}.get(name, shape)
                stored = file.get_slice(name)
                if (stored.get_dtype(), stored.get_shape()) != ((_KINDS | _SCALE)[name], shape):
                    raise _mismatch(f"{name} has another shape or number type than {shape}")
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise _mismatch(f"{error}") from error


def _check_trees(trees: Ensemble, config: BoostedTreesConfig, columns: int) -> None:
    """Raise `Corrupt` for a tree that decides by a missing column, or has a leaf that is not a
    number."""
    if len(trees) > config.most_trees:
        raise _mismatch(f"it has {len(trees)} trees")
    if not (
        bool((trees.group < config.groups).all())
        and bool(((trees.column >= END) & (trees.column < columns)).all())
        and bool((trees.missing <= 1).all())
    ):
        raise _mismatch("a tree reads a column, or adds to a class, that is not there")
    if not bool(np.isfinite(trees.threshold).all()) or not bool(
        (np.abs(trees.leaf) <= MOST_LEAF).all()  # Not so for what is not a number.
    ):
        raise _mismatch("a tree has a value that is not finite, or too large")


def _standard(arrays: _Arrays) -> Standard | None:
    if "standard.mean" not in arrays:
        return None
    mean, var, count = (torch.from_numpy(arrays[name]) for name in _SCALE)
    finite = all(bool(one.isfinite().all()) for one in (mean, var, count))
    if not finite or bool((var < 0.0).any()) or bool((count < 0.0).any()):
        raise _mismatch("the scale of its columns is none")
    return Standard(mean=mean, var=var, count=count)


def _mismatch(problem: str) -> Corrupt:
    return Corrupt(
        f"the parts do not match boosted trees of this configuration: {problem}",
        field="model.config",
        fix=CONFIG_FIX,
    )
