"""A model's parts as named arrays, which Flower's servers average, and back.

Each tensor of a part in safetensors is an array, `part/tensor`. Any other part, and one
without tensors, is an array of its bytes, `part`: the mean of equal bytes is the same bytes, and
sites whose parts differ (in their columns, say) notice when they read the mean.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from daitn.objects.errors import Corrupt, InvalidInput

__all__ = ["Arrays", "arrays_of", "check_like", "write_parts"]

Arrays = dict[str, NDArray[Any]]

_WEIGHTS = ".safetensors"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def arrays_of(folder: Path) -> Arrays:
    """Raises `InvalidInput` for weights that cannot be averaged."""
    found: Arrays = {}
    for path in sorted(folder.iterdir()):
        if path.suffix != _WEIGHTS:
            found[path.name] = _bytes(path)
            continue
        try:
            tensors = load_file(path)
        except (SafetensorError, TypeError) as error:
            raise InvalidInput(f"{path.name}: {error}", field="model", fix="use float32") from error
        if not tensors:  # Of a model whose columns are not known yet.
            found[path.name] = _bytes(path)
        for name, tensor in tensors.items():
            if tensor.dtype.kind != "f":
                raise InvalidInput(
                    f"{name} in {path.name} has the type {tensor.dtype}, which cannot be averaged",
                    field="model.recipe",
                    fix="use a recipe whose models are weights",
                )
            found[f"{path.name}/{name}"] = tensor
    return found


def write_parts(arrays: Mapping[str, NDArray[Any]], out: Path) -> None:
    """Write the parts into the folder `out`. Raises `Corrupt` for invalid arrays."""
    tensors: dict[str, Arrays] = defaultdict(dict)
    for name, array in arrays.items():
        part, _, tensor = name.partition("/")
        if not _PART.fullmatch(part) or (tensor and not part.endswith(_WEIGHTS)):
            raise Corrupt(f"{name!r} is not an array of a part", field="arrays", fix="start over")
        if not bool(np.isfinite(array).all()):
            raise _not_finite(name)
        if tensor:
            tensors[part][tensor] = np.ascontiguousarray(array)
        else:
            # A server may have averaged them.
            (out / part).write_bytes(np.rint(array).clip(0, 255).astype(np.uint8).tobytes())
    for part, held in tensors.items():
        save_file(held, out / part)


def check_like(arrays: Mapping[str, NDArray[Any]], before: Mapping[str, NDArray[Any]]) -> None:
    """Raise `Corrupt` for arrays that do not match these: floats of the same shapes."""
    if arrays.keys() != before.keys():
        raise Corrupt(
            "the returned arrays differ from those passed in", field="arrays", fix="fix the app"
        )
    for name, array in arrays.items():
        if array.shape != before[name].shape or array.dtype != before[name].dtype:
            raise Corrupt(
                f"{name} came back as {array.dtype} of {array.shape}",
                field="arrays",
                fix="fix the app",
            )
        if not bool(np.isfinite(array).all()):
            raise _not_finite(name)


def _bytes(path: Path) -> NDArray[np.uint8]:
    return np.frombuffer(path.read_bytes(), np.uint8).copy()


def _not_finite(name: str) -> Corrupt:
    return Corrupt(f"{name} has values that are not finite", field="arrays", fix="train less")
