"""A classifier on disk: `weights.safetensors` and `features.json`.

The tensors of layer n are `layers.n.weight` and `layers.n.bias`. Each input column's scaling is in
`standard.mean`, `standard.var` and `standard.count`. A model of `auto` features has no tensors
until data determines its columns; `features.json` holds the seed of its future weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor

from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.features import (
    FEATURES,
    WEIGHTS,
    Features,
    mismatch,
    read_features,
)
from daitn.learning.local.companions import Companions, read_companions, write_companions
from daitn.learning.recipe import DataFault, Fault
from daitn.learning.weights import Shape, read_header, read_tensors
from daitn.objects.errors import DaitnError
from daitn.objects.text import plain

__all__ = ["Standard", "State", "arranged", "fresh", "read", "settle", "write"]

_SCALE = frozenset({"standard.mean", "standard.var", "standard.count"})


@dataclass
class Standard:
    """Mean and variance of each feature over the examples that the model has learned from."""

    mean: Tensor
    var: Tensor
    count: Tensor
    """Examples with a value, per column: an empty column says nothing about scale."""


@dataclass
class State:
    """A model in memory, on the CPU."""

    seed: int
    columns: tuple[str, ...]
    """Empty until the model has seen data."""
    layers: list[tuple[Tensor, Tensor]]
    """Weight and bias of each; empty until the number of columns is known."""
    standard: Standard | None
    companions: Companions = field(default_factory=Companions)
    """For the tensors of `layers`, in their order."""


def fresh(config: ClassifierConfig, seed: int) -> State:
    """A model without training."""
    state = State(seed=seed, columns=(), layers=[], standard=None)
    if isinstance(config.features, int):
        state.layers = _random_layers(config.layer_sizes(config.features), seed)
    return state


def settle(state: State, config: ClassifierConfig, columns: tuple[str, ...]) -> None:
    """Bind a fresh model to the first columns that it sees.

    Raises `DataFault` if their number is not the configured one.
    """
    if isinstance(config.features, int) and config.features != len(columns):
        raise DataFault(
            Fault.OTHER_WIDTH,
            f"the model takes {config.features} features, the data has {len(columns)}: "
            f"{', '.join(columns[:5])}, ...",
            {"model": config.features, "data": len(columns)},
            field="model.config.features",
            fix="give the number of feature columns, or `auto`",
        )
    state.columns = columns
    if not state.layers:
        state.layers = _random_layers(config.layer_sizes(len(columns)), state.seed)


def arranged(state: State, columns: tuple[str, ...]) -> State:
    """A model of these columns, in another order, with them in this one."""
    if state.columns == columns:
        return state
    at = [state.columns.index(column) for column in columns]
    (weight, bias), *rest = state.layers
    standard, variate = state.standard, list(state.companions.variate)
    assert standard is not None
    variate[:1] = [first[:, at] for first in variate[:1]]
    return replace(
        state,
        columns=columns,
        layers=[(weight[:, at], bias), *rest],
        standard=Standard(mean=standard.mean[at], var=standard.var[at], count=standard.count[at]),
        companions=state.companions._replace(variate=variate),
    )


def write(state: State, out: Path) -> None:
    """Write a model's parts into the folder `out`."""
    tensors: dict[str, Tensor] = {}
    for index, (weight, bias) in enumerate(state.layers):
        tensors[f"layers.{index}.weight"] = weight.contiguous()
        tensors[f"layers.{index}.bias"] = bias.contiguous()
    if state.standard is not None:
        tensors["standard.mean"] = state.standard.mean
        tensors["standard.var"] = state.standard.var
        tensors["standard.count"] = state.standard.count
    save_file(tensors, out / WEIGHTS)
    features = Features(seed=state.seed, columns=state.columns)
    (out / FEATURES).write_bytes(msgspec.json.encode(features))
    write_companions(state.companions, _names(len(state.layers)), out)


def read(model: Path, config: ClassifierConfig) -> State:
    """Read a model's parts. Raises `Corrupt` if they do not fit the configuration."""
    features = read_features(model / FEATURES)
    try:
        shapes = read_header(model / WEIGHTS).shapes
    except (OSError, DaitnError) as error:
        raise mismatch(f"{error}") from error
    if not shapes and not features.columns:
        return fresh(config, features.seed)
    width = len(features.columns) or config.features
    if not isinstance(width, int):
        raise mismatch("it has weights but names no columns")
    sizes = config.layer_sizes(width)
    _check_shapes(shapes, sizes)
    tensors = read_tensors(model / WEIGHTS)
    columns = tuple(map(plain, features.columns))
    state = State(seed=features.seed, columns=columns, layers=[], standard=None)
    state.layers = [
        (
            _tensor(tensors, f"layers.{index}.weight", (after, before)),
            _tensor(tensors, f"layers.{index}.bias", (after,)),
        )
        for index, (before, after) in enumerate(itertools.pairwise(sizes))
    ]
    if "standard.count" in tensors:
        state.standard = Standard(
            mean=_tensor(tensors, "standard.mean", (width,)),
            var=_tensor(tensors, "standard.var", (width,)),
            count=_counts(tensors, width),
        )
    shapes_of = {name: shapes[name] for name in _names(len(state.layers))}
    state.companions = read_companions(model, shapes_of)
    return state


def _names(layers: int) -> list[str]:
    """Names of the trained tensors."""
    return [f"layers.{index}.{kind}" for index in range(layers) for kind in ("weight", "bias")]


def _tensor(
    tensors: dict[str, Tensor],
    name: str,
    shape: tuple[int, ...],
    kind: torch.dtype = torch.float32,
) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != kind:
        raise mismatch(f"{name} is not a {kind} tensor of shape {shape}")
    if not bool(torch.isfinite(tensor).all()):
        raise mismatch(f"{name} has values that are not finite")
    return tensor


def _check_shapes(shapes: Mapping[str, Shape], sizes: tuple[int, ...]) -> None:
    """Raise `Corrupt` before anything is read, unless the tensors match these layers."""
    width = sizes[0]
    expected: dict[str, Shape] = {}
    for index, (before, after) in enumerate(itertools.pairwise(sizes)):
        expected[f"layers.{index}.weight"] = (after, before)
        expected[f"layers.{index}.bias"] = (after,)
    for name in dict.fromkeys((*expected, *shapes)):
        shape = shapes.get(name)
        if name in expected:
            fits = shape == expected[name]
        else:
            fits = name in _SCALE and shape in ((width,), (1,))
        if not fits:
            raise mismatch(f"{name} is not a tensor of shape {expected.get(name, (width,))}")


def _counts(tensors: dict[str, Tensor], width: int) -> Tensor:
    """One count per column. Older models have one for all."""
    shape = (1,) if tuple(tensors["standard.count"].shape) == (1,) else (width,)
    counts = _tensor(tensors, "standard.count", shape, torch.float64)
    if bool((counts < 0.0).any()):
        raise mismatch("standard.count has negative values")
    return counts.expand(width).contiguous()


def _random_layers(sizes: tuple[int, ...], seed: int) -> list[tuple[Tensor, Tensor]]:
    """He initialisation (He et al. 2015, for rectified units), with biases of zero."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(after, before, generator=generator) * (2.0 / before) ** 0.5,
            torch.zeros(after),
        )
        for before, after in itertools.pairwise(sizes)
    ]
