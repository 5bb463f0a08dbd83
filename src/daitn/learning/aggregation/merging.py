"""Merges the weights of several models, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from daitn.learning.aggregation.outer import Outer
from daitn.learning.aggregation.rules import outer_of, reduction_of
from daitn.learning.aggregation.screening import Likeness, bounded_shares, shortened
from daitn.learning.weights import read_header
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.merging import TOLERANT, MergeRule

__all__ = ["TensorFile", "check_parts", "merge_tensors", "unfit"]

_AT_ONCE = 1 << 22
"""Limit on numbers of all models' pieces of a tensor."""

Tensors = Mapping[str, Tensor]


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a file, read one by one on request."""

    def __init__(self, path: Path) -> None:
        """Raises like `read_header`."""
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
    starts: Sequence[Tensors] = (),
    scales: Sequence[float] = (),
    single: Sequence[int] = (),
    alike: Sequence[bool] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The merged tensors, in their own number types, and the new moments of the outer step.

    `base`: what is moved, and what the models were trained from unless `starts` says of each;
    `shares`: how much each model counts, of any positive sum; `scales`: what the update of each is
    multiplied by, 1 if empty; `moments`: those of the last merge, empty at first. The same
    arguments give the same bits.
    `single`: those of the models that a single site made, and that may come of liars: none of them
    counts for much more, or goes much further, than usual. `alike`: whether the site of each
    publishes about the same labels as most others, empty if that is not known.
    Raises `InvalidInput` if there are too few models for the reduction, or if the merge leaves the
    range of a number type, and `Corrupt` for a model with other tensors than `base`, with values
    that are not finite, or, if `single`, whose update no training makes or is unlike those of sites
    that are `alike`; its field is `models[k]`.
    """
    reduction, outer = reduction_of(rule, len(models), seed), outer_of(rule)
    starts, scales = starts or (base,) * len(models), scales or (1.0,) * len(models)
    updates = [_Update(*one) for one in zip(models, starts, scales, strict=True)]
    for number, update in enumerate(updates):
        _check_like(number, update.model, base)
        if update.start is not base:
            _check_like(number, update.start, base)
    updates, shares = _bounded(base, updates, shares, rule, single, alike)
    weights = torch.tensor(shares, dtype=torch.float32)
    weights /= weights.sum()
    reduction.prepare(_apart(base, updates) if reduction.compares else None)
    merged: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name in sorted(base):
        start = base[name]
        found = torch.empty_like(start)
        before = _moments(outer, moments, name, start)
        after = {which: torch.empty(start.shape) for which in before}
        for part in _parts(start, len(models), whole=reduction.whole):
            reduced = reduction.reduce(_updates(name, part, start, updates), weights)
            step, then = outer.step(reduced, {which: before[which][part] for which in before})
            found[part] = (start[part].float() + step).to(start.dtype)
            for which, tensor in then.items():
                after[which][part] = tensor
        if not all(bool(one.isfinite().all()) for one in (found, *after.values())):
            raise InvalidInput(
                f"the merged {name} has values that are not finite",
                field="training.merging.rate",
                fix="lower the rate, or use another algorithm",
            )
        merged[name] = found.contiguous()
        kept.update({f"{which}.{name}": tensor for which, tensor in after.items()})
    return merged, kept


def _bounded(
    base: Tensors,
    updates: Sequence[_Update],
    shares: Sequence[float],
    rule: MergeRule,
    single: Sequence[int],
    alike: Sequence[bool],
) -> tuple[list[_Update], list[float]]:
    """Updates and shares as they may count. Raises `Corrupt` for an update that may not. `single`:
    which of them a single site made."""
    movable = rule.reduction not in TOLERANT  # A single update can move it anywhere.
    found = _likeness(base, updates, [k for k in single if alike and alike[k]], len(single))
    if (odd := found.beyond()) is not None:
        raise unfit(*odd)
    if not single:
        return list(updates), list(shares)
    among, stated = found.of(single), [shares[k] for k in single]
    odd = among.impossible(stated) or (among.outlier(stated) if movable else None)
    if odd is not None:
        raise unfit(single[odd[0]], odd[1])
    bounded, counted = list(updates), list(shares)
    if not movable:
        return bounded, counted
    groups = [k for k in range(len(updates)) if k not in single]
    factors = shortened(among.norms, found.norms[groups]).tolist()
    for k, factor, share in zip(single, factors, bounded_shares(stated).tolist(), strict=True):
        bounded[k] = bounded[k]._replace(scale=bounded[k].scale * factor)
        counted[k] = share
    return bounded, counted


def _likeness(
    base: Tensors, updates: Sequence[_Update], alike: Sequence[int], single: int
) -> Likeness:
    found = Likeness.empty(len(updates), alike, single)
    whole = [one._replace(scale=1.0) for one in updates]
    for name in sorted(base):
        start = base[name]
        for part in _parts(start, len(updates), whole=False):
            found.add(_updates(name, part, start, whole), start[part])
    return found


class _Update(NamedTuple):
    """A model's change by training, with its weight."""

    model: Tensors
    start: Tensors
    scale: float


def _check_like(number: int, model: Tensors, base: Tensors) -> None:
    """Raise `Corrupt` for a model with other tensors than the base."""
    if model.keys() != base.keys():
        raise unfit(number, "it has other tensors than the model that it was trained from")
    for name in base:
        weights, expected = model[name], base[name]
        if weights.shape != expected.shape or weights.dtype != expected.dtype:
            raise unfit(number, f"{name} has the shape {tuple(weights.shape)} and {weights.dtype}")
        if not bool(weights.isfinite().all()):
            raise unfit(number, f"{name} has values that are not finite")


def _parts(start: Tensor, models: int, *, whole: bool) -> Iterator[slice | EllipsisType]:
    """Slices of a tensor along its first dimension, small enough that those of all models fit
    into memory together."""
    if whole or start.dim() == 0:
        yield ...
        return
    row = max(1, start[:1].numel())
    rows = max(1, _AT_ONCE // (models * row))
    for first in range(0, len(start), rows):
        yield slice(first, first + rows)


def _updates(name: str, part: slice | EllipsisType, like: Tensor, of: Sequence[_Update]) -> Tensor:
    """(N, ...) in float32."""
    found = torch.empty(len(of), *like[part].shape)
    begin, begin_of = Tensor(), None
    for number, (model, start, scale) in enumerate(of):
        if start is not begin_of:
            begin, begin_of = start[name][part].float(), start
        torch.sub(model[name][part].float(), begin, out=found[number])
        if scale != 1.0:
            found[number] *= scale
    return found


def _apart(base: Tensors, of: Sequence[_Update]) -> Tensor:
    """(N, N): squared distances between whole updates.

    From differences and not from products, which would lose those of nearly equal updates.
    """
    squared = torch.zeros(len(of), len(of), dtype=torch.float64)
    for name in sorted(base):
        start = base[name]
        for part in _parts(start, len(of), whole=False):
            flat = _updates(name, part, start, of).reshape(len(of), -1)
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


def check_parts(number: int, model: Path, base: Path, *names: str) -> None:
    """Raise `Corrupt` for a model with parts other than its base's and those of these names."""
    known = {part.name for part in base.iterdir()} | set(names)
    if more := sorted(part.name for part in model.iterdir() if part.name not in known):
        raise unfit(number, f"it has a part that no such model has: {more[0]}")


def unfit(number: int, problem: str, fix: str = "merge without it") -> Corrupt:
    """The problem with the model of this number: its field is `models[k]`."""
    return Corrupt(problem, field=f"models[{number}]", fix=fix)
