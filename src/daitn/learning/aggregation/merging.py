"""Merges the weights of several models, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from daitn.learning.aggregation.outer import Outer
from daitn.learning.aggregation.settings import outer_of, reduction_of
from daitn.learning.weights import read_header
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.merging import MergeRule

__all__ = ["TensorFile", "merge_tensors"]

Tensors = Mapping[str, Tensor]


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a file, each of which is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises as `read_header`."""
        header = read_header(path)
        self._file = safe_open(path, framework="pt")
        self._names = tuple(header.shapes)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def merge_tensors(
    base: Tensors,
    models: Sequence[Tensors],
    shares: Sequence[float],
    rule: MergeRule,
    *,
    seed: int,
    moments: Tensors,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The merged tensors, in their own number types, and the new moments of the outer step.

    `base`: what the models were trained from; `shares`: how much each model counts, of any positive
    sum; `moments`: those of the last merge, empty at first. The same arguments give the same bits.
    Raises `InvalidInput` if there are too few models for the reduction, and `Corrupt` for a model
    with other tensors than `base`, or with values that are not finite; its field is `models[k]`.
    """
    reduction, outer = reduction_of(rule, len(models), seed), outer_of(rule)
    weights = torch.tensor(shares, dtype=torch.float32)
    weights /= weights.sum()
    for number, model in enumerate(models):
        if model.keys() != base.keys():
            raise _unlike(number, "it has other tensors than the model that it was trained from")
    reduction.prepare(_apart(base, models) if reduction.compares else None)
    merged: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name in sorted(base):
        start = base[name].float()
        update = reduction.reduce(_updates(name, start, models), weights)
        step, after = outer.step(update, _moments(outer, moments, name, start))
        merged[name] = (start + step).to(base[name].dtype).contiguous()
        kept.update({f"{which}.{name}": tensor for which, tensor in after.items()})
    return merged, kept


def _updates(name: str, start: Tensor, models: Sequence[Tensors]) -> Tensor:
    """(N, ...) in float32."""
    updates = torch.empty(len(models), *start.shape)
    for number, model in enumerate(models):
        weight = model[name]
        if weight.shape != start.shape:
            raise _unlike(number, f"{name} has the shape {tuple(weight.shape)}")
        torch.sub(weight.float(), start, out=updates[number])
        if not bool(updates[number].isfinite().all()):
            raise _unlike(number, f"{name} has values that are not finite")
    return updates


def _apart(base: Tensors, models: Sequence[Tensors]) -> Tensor:
    """(N, N): squared distances between whole updates.

    From differences and not from products, which would lose those of nearly equal updates.
    """
    squared = torch.zeros(len(models), len(models), dtype=torch.float64)
    for name in sorted(base):
        flat = _updates(name, base[name].float(), models).flatten(1)
        for number, update in enumerate(flat):
            squared[number] += (flat - update).double().square().sum(dim=1)
    return squared


def _moments(outer: Outer, moments: Tensors, name: str, like: Tensor) -> dict[str, Tensor]:
    found = {}
    for which in outer.moments:
        before = moments.get(f"{which}.{name}") if moments else torch.zeros_like(like)
        if before is None or before.shape != like.shape or before.dtype != torch.float32:
            raise InvalidInput(
                f"the last merge left no {which} of {name}",
                field="training.merging.outer",
                fix="keep the outer step, and the model, of the last merge",
            )
        found[which] = before
    return found


def _unlike(number: int, problem: str) -> Corrupt:
    return Corrupt(problem, field=f"models[{number}]", fix="merge without it")
