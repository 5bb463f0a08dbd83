"""Weights in untrusted safetensors files: checked by their header before any is read.

Reading them runs no code. The loader of a model compares the header with what its configuration
expects, so that nothing is allocated for a tensor that nobody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from daitn.learning.recipe import DataFault, Fault
from daitn.objects.errors import Corrupt, NotFound

__all__ = ["Header", "Shape", "best", "check_losses", "read_header", "read_tensors"]

Shape = tuple[int, ...]

MOST_HEADER_BYTES = 1 << 24
"""Enough for 100,000 tensors; the format itself allows six times as much."""
MOST_TENSORS = 100_000
MOST_NAME_CHARS = 500
_LENGTH_BYTES = 8
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The number types of weights."""


class Header(NamedTuple):
    """A file's description of its tensors. The file has exactly the bytes that they need."""

    shapes: dict[str, Shape]
    metadata: dict[str, str]
    size_bytes: int
    """Size of all tensors."""

    @property
    def numbers(self) -> int:
        return sum(map(math.prod, self.shapes.values()))


def read_header(path: Path, also: Mapping[str, int] = MappingProxyType({})) -> Header:
    """Read the header of a file of weights. `also`: further number types, with their bytes.

    Raises `NotFound`, and `Corrupt` for one that is malformed, too large, or of other number types.
    """
    if not path.is_file():
        raise NotFound(f"no part {path}", field=path.name, fix="fetch the model again")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > MOST_HEADER_BYTES:
        raise _corrupt(path, f"its header has {length} bytes, at most {MOST_HEADER_BYTES} are read")
    shapes: dict[str, Shape] = {}
    size_bytes = 0
    types = {**_BYTES, **also}
    try:
        # The library checks that the tensors cover the file without gaps and overlaps.
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MOST_TENSORS or any(len(name) > MOST_NAME_CHARS for name in names):
                raise _corrupt(path, "it has too many tensors, or too long names")
            for name in names:
                tensor = file.get_slice(name)
                if tensor.get_dtype() not in types:
                    raise _corrupt(path, f"{name} has the type {tensor.get_dtype()}")
                shapes[name] = tuple(tensor.get_shape())
                size_bytes += types[tensor.get_dtype()] * math.prod(shapes[name])
            return Header(shapes, dict(file.metadata() or {}), size_bytes)
    except SafetensorError as error:
        raise _corrupt(path, str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file with a checked header.

    Raises `Corrupt` for a value that is not finite: whatever is computed with it would be too.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _corrupt(path, str(error)) from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise _corrupt(path, f"{name} has values that are not finite")
    return tensors


def best(scores: Tensor) -> Tensor:
    """The index of each row's best score; -1, which means no answer, if one is not finite.

    Raises `DataFault` if that is so in most rows: a model made for it would otherwise fail
    visibly on a single item.
    """
    finite = torch.isfinite(scores).all(dim=1)
    if 2 * int(finite.sum()) < len(scores):
        raise DataFault(
            Fault.SCORES_NOT_FINITE,
            "the model's scores are not finite",
            field="model",
            fix="train it again with a lower learning rate",
        )
    return torch.where(finite, scores.argmax(dim=1), -1)


def check_losses(not_finite: int, examples: int) -> None:
    """Raise `DataFault` if the losses of most examples were not finite.

    Those of a few are left out of training without a word, as for `best`.
    """
    if 2 * not_finite > examples:
        raise DataFault(
            Fault.LOSS_NOT_FINITE,
            f"the loss of {not_finite} of {examples} examples was not finite",
            field="model.config.learning_rate",
            fix="lower model.config.learning_rate",
        )


def _corrupt(path: Path, problem: str) -> Corrupt:
    return Corrupt(f"{path}: {problem}", field=path.name, fix="fetch the model again")
