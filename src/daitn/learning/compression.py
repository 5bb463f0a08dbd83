"""Compressed updates: the difference between a trained model and its start.

A file of weights `X.safetensors` of a model becomes the *update part* `X.update.safetensors`, which
names the model it is of. What a tensor loses is kept at the site and added to the next update of
the same data, so that nothing is lost for good (error feedback: Seide et al. 2014, "1-bit
stochastic gradient descent"; Karimireddy et al. 2019, arXiv:1901.09847). Tensors of fewer than two
dimensions are few numbers, of which some are counts and variances: they travel as they are.
"""

from __future__ import annotations

import filecmp
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from daitn.learning.weights import Header, read_header
from daitn.objects.compression import UPDATE, Compression
from daitn.objects.errors import Corrupt

__all__ = ["compress", "rebuild"]

_WEIGHTS = ".safetensors"
_KEPT = 1 / 16
"""Share of a tensor's numbers that `topk` sends: each costs six bytes."""
_BASE, _HOW = "daitn.update.base", "daitn.update.how"
_ALSO = {"I8": 1, "I32": 4}
_MOST_INDEX = 2**31 - 1


class _Sent(NamedTuple):
    """What is sent of a tensor, and the update that it represents."""

    tensors: dict[str, Tensor]
    update: Tensor


def compress(
    base: Path, of: str, trained: Path, how: Compression, before: Path | None, left: Path
) -> None:
    """Replace the weights in the folder `trained` by their difference from the model in `base`,
    whose digest is `of`. A file without a match in `base` stays unchanged, as does one with numbers
    other than weights, such as trees.

    `before`: a file of what earlier updates lost; `left`: the file for what is lost now.
    """
    lost: dict[str, Tensor] = {}
    feedback = load_file(before) if before is not None else {}
    for path in sorted(trained.glob(f"*{_WEIGHTS}")):
        start = base / path.name
        if not start.is_file():
            continue
        try:
            header, before_it = read_header(path), read_header(start)
        except Corrupt:
            continue
        if before_it.shapes != header.shapes:
            continue
        if filecmp.cmp(path, start, shallow=False):
            continue  # A frozen part, which keeps its digest and travels no more.
        sent = _compressed(path, start, how, feedback, lost)
        metadata = {**header.metadata, _BASE: of, _HOW: how.value}
        save_file(sent, path.with_name(path.name.removesuffix(_WEIGHTS) + UPDATE), metadata)
        path.unlink()
    if lost:
        save_file(lost, left)


def rebuild(base: Path, of: str, update: Path, out: Path) -> None:
    """Write the weights represented by the update parts in the folder `update` to `out`.

    Raises `Corrupt` for an update of another model, or one that does not fit `base`.
    """
    for path in sorted(update.glob(f"*{UPDATE}")):
        name = path.name
        whole = name.removesuffix(UPDATE) + _WEIGHTS
        header = read_header(update / name, also=_ALSO)
        if header.metadata.get(_BASE) != of:
            raise _unfit(name, "it is an update of another model")
        metadata = {k: v for k, v in header.metadata.items() if k not in (_BASE, _HOW)}
        start = read_header(base / whole)
        _check_fits(name, header, start)
        tensors, sent = load_file(base / whole), load_file(update / name)
        for tensor, begin in tensors.items():
            tensors[tensor] = _rebuilt(name, tensor, begin, sent)
        save_file(tensors, out / whole, metadata)


def _compressed(
    path: Path,
    start: Path,
    how: Compression,
    feedback: Mapping[str, Tensor],
    lost: dict[str, Tensor],
) -> dict[str, Tensor]:
    begin, after = load_file(start), load_file(path)
    found: dict[str, Tensor] = {}
    for name, tensor in after.items():
        if tensor.dim() < 2 or begin[name].dtype != tensor.dtype:
            found[f"whole.{name}"] = tensor
            continue
        update = tensor.float() - begin[name].float()
        key = f"{path.name}/{name}"
        earlier = feedback.get(key)
        if earlier is not None and earlier.shape == update.shape:
            update += earlier
        sent = _sent(update, how)
        found.update({f"{what}.{name}": one for what, one in sent.tensors.items()})
        lost[key] = update - sent.update
    return found


def _sent(update: Tensor, how: Compression) -> _Sent:
    match how:
        case Compression.BF16:
            values = update.bfloat16()
            return _Sent({"values": values}, values.float())
        case Compression.INT8:
            scale = update.abs().max() / 127.0
            steps = update / scale if float(scale) > 0.0 else torch.zeros_like(update)
            steps = steps.round().to(torch.int8)
            return _Sent({"values": steps, "scale": scale}, steps.float() * scale)
        case Compression.TOPK:
            flat = update.flatten()
            index = flat.abs().topk(math.ceil(_KEPT * flat.numel()), sorted=False).indices
            values = flat[index].bfloat16()
            full = torch.zeros_like(flat).index_put((index,), values.float())
            where = index.to(torch.int32)
            return _Sent({"values": values, "index": where}, full.reshape(update.shape))
        case _:
            raise ValueError(f"{how} is not a form of an update")


def _check_fits(part: str, header: Header, base: Header) -> None:
    """Raise `Corrupt` unless an update has exactly the tensors of one of the base. Only headers
    have been read by now."""
    left = set(header.shapes)
    for name, shape in base.shapes.items():
        present = {
            what for what in ("whole", "values", "scale", "index") if f"{what}.{name}" in left
        }
        left -= {f"{what}.{name}" for what in present}
        values = header.shapes.get(f"values.{name}", ())
        numbers = math.prod(shape)
        fits = (
            (present == {"whole"} and header.shapes[f"whole.{name}"] == shape)
            or (present == {"values"} and values == shape)
            or (
                present == {"values", "scale"}
                and values == shape
                and header.shapes[f"scale.{name}"] == ()
            )
            or (
                present == {"values", "index"}
                and values == header.shapes[f"index.{name}"]
                and len(values) == 1
                and values[0] <= numbers <= _MOST_INDEX
            )
        )
        if not fits:
            raise _unfit(part, f"it says nothing that fits {name}")
    if left:
        raise _unfit(part, f"{min(left)} is of no tensor of the model")


def _rebuilt(part: str, name: str, begin: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
    whole = sent.get(f"whole.{name}")
    if whole is not None:
        if whole.dtype != begin.dtype:
            raise _unfit(part, f"{name} is of {whole.dtype}")
        return whole
    update, index = sent[f"values.{name}"].float(), sent.get(f"index.{name}")
    if index is not None:
        where = index.long()
        if where.numel() and not 0 <= int(where.min()) <= int(where.max()) < begin.numel():
            raise _unfit(part, f"{name} has values where the model has none")
        update = torch.zeros(begin.numel()).index_put((where,), update).reshape(begin.shape)
    if f"scale.{name}" in sent:
        update = update * sent[f"scale.{name}"].float()
    return (begin.float() + update).to(begin.dtype)


def _unfit(part: str, problem: str) -> Corrupt:
    return Corrupt(f"{part}: {problem}", field=part, fix="merge without it")
