"""Tensors that an algorithm sends along with a model, as one of its parts.

They are float32, one tensor for each that is trained: `variate.NAME` of its shape, and
`importance.NAME` with one number for each unit, of the shape (units, 1, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from daitn.learning.weights import Shape, read_header, read_tensors
from daitn.objects.errors import Corrupt

__all__ = ["COMPANIONS", "Companions", "read_companions", "write_companions"]

COMPANIONS = "companions.safetensors"
"""Name of the part; models of algorithms without companions lack it."""


class Companions(NamedTuple):
    """Numbers beside the trained weights, in their order; empty means there are none."""

    variate: Sequence[Tensor] = ()
    """For SCAFFOLD: in a site's model its own variate, in a merged one the mean."""
    importance: Sequence[Tensor] = ()
    """For EWC."""


def read_companions(model: Path, shapes: Mapping[str, Shape]) -> Companions:
    """Companions of the model in a folder. `shapes`: of the trained tensors, in their order.

    Raises `Corrupt` if they do not fit these, or are not finite.
    """
    path = model / COMPANIONS
    if not path.is_file():
        return Companions()
    expected = {f"variate.{name}": shape for name, shape in shapes.items()} | {
        f"importance.{name}": (*shape[:1], *(1 for _ in shape[1:]))
        for name, shape in shapes.items()
    }
    found = read_header(path).shapes
    wrong = sorted(name for name, shape in found.items() if expected.get(name) != shape)
    tensors = read_tensors(path) if not wrong else {}
    wrong += sorted(name for name, tensor in tensors.items() if tensor.dtype != torch.float32)
    kinds = {name.partition(".")[0] for name in tensors}
    wrong += [name for name in expected if name.partition(".")[0] in kinds and name not in tensors]
    if wrong:
        raise Corrupt(f"{path}: {wrong[0]} does not fit", field=path.name, fix="fetch it again")
    return Companions(
        *([tensors[f"{kind}.{name}"] for name in shapes] if kind in kinds else ()
          for kind in Companions._fields)
    )  # fmt: skip


def write_companions(companions: Companions, names: Sequence[str], out: Path) -> None:
    """Write the part into the folder `out`, if there is anything to write. `names`: of the trained
    tensors."""
    tensors = {
        f"{kind}.{name}": tensor.detach().float().cpu().contiguous()
        for kind, group in zip(Companions._fields, companions, strict=True)
        for name, tensor in zip(names, group, strict=bool(group))
    }
    if tensors:
        save_file(tensors, out / COMPANIONS)
