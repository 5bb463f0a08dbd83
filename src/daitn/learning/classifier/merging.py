"""Merging classifiers that learned from different tables.

Each site scales its columns by what it and the model have seen of them. The merged model scales
them by all examples together. Its weights are merged as they are: to tell those of each model in
the common scale first would magnify what it never learned, in columns that hardly vary at its site
(digits, two classes at each of five sites: 0.57 after ten rounds instead of 0.69).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from daitn.learning.aggregation.merging import TensorFile, merge_tensors, unfit
from daitn.learning.classifier import parts
from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.parts import Standard, State
from daitn.learning.local.companions import Companions
from daitn.learning.local.variates import mean_variate
from daitn.learning.recipe import MergeTask
from daitn.objects.errors import DaitnError
from daitn.objects.merging import Reduces

__all__ = ["merge"]


def merge(task: MergeTask, config: ClassifierConfig, out: Path, moments: Path) -> None:
    """See `Merging.merge`."""
    base = parts.read(Path(task.base), config)
    models = [_read(number, Path(model), base, config) for number, model in enumerate(task.models)]
    columns = base.columns or _usual_columns(models)
    models = [_arranged(number, model, columns) for number, model in enumerate(models)]
    variate = mean_variate([model.companions for model in models], task.shares)
    parts.settle(base, config, columns)
    scale = _scale(base, models, task)
    tensors, kept = merge_tensors(
        _tensors(base),
        [_tensors(model) for model in models],
        task.shares,
        task.rule,
        seed=task.seed,
        moments=TensorFile(Path(task.moments)) if task.moments else {},
    )
    layers = [
        (tensors[f"layers.{index}.weight"], tensors[f"layers.{index}.bias"])
        for index in range(len(base.layers))
    ]
    state = State(seed=base.seed, columns=columns, layers=layers, standard=scale)
    parts.write(replace(state, companions=Companions(variate=variate)), out)
    if kept:
        save_file(kept, moments)


def _read(number: int, model: Path, base: State, config: ClassifierConfig) -> State:
    try:
        state = parts.read(model, config)
    except DaitnError as error:
        raise unfit(number, error.problem) from None
    told = state.standard
    if not state.layers or told is None:
        raise unfit(number, "it has not learned anything")
    if bool((told.var < 0.0).any()):
        raise unfit(number, "the scale of its columns is none")
    if base.columns and state.columns != base.columns:
        raise unfit(number, "it reads other columns")
    return state


def _usual_columns(models: Sequence[State]) -> tuple[str, ...]:
    """Those that most models read, in the order of the first of these models."""
    read = Counter(tuple(sorted(model.columns)) for model in models)
    usual = read.most_common(1)[0][0]
    return next(model.columns for model in models if tuple(sorted(model.columns)) == usual)


def _arranged(number: int, state: State, columns: tuple[str, ...]) -> State:
    """A model of these columns, in this order: each site has its own until a model has one."""
    if sorted(state.columns) != sorted(columns):
        raise unfit(number, "it reads other columns")
    return parts.arranged(state, columns)


def _scale(base: State, models: Sequence[State], task: MergeTask) -> Standard:
    """The scale of all examples, or, where a model may lie, the median of what the models say."""
    told = [model.standard for model in models if model.standard is not None]
    if task.rule.reduction is Reduces.MEAN or len(told) == 1:
        return _pooled(base.standard, told)
    return Standard(
        mean=torch.stack([one.mean for one in told]).quantile(0.5, dim=0),
        var=torch.stack([one.var for one in told]).quantile(0.5, dim=0),
        count=torch.stack([one.count for one in told]).quantile(0.5, dim=0),
    )


def _pooled(base: Standard | None, models: Sequence[Standard]) -> Standard:
    """Over what `base` has seen and what each model has seen since."""
    about = models[0].mean.double()  # Sums about a near value keep their digits.
    before = _sums(base, about) if base is not None else torch.zeros(3, len(about)).double()
    count, first, second = before + sum(_sums(one, about) - before for one in models)
    seen = count.clamp_min(1e-9)
    mean = first / seen
    return Standard(
        mean=(about + mean).float(),
        var=(second / seen - mean.square()).clamp_min(0.0).float(),
        count=count.clamp_min(0.0),
    )


def _sums(standard: Standard, about: Tensor) -> Tensor:
    """(3, columns): examples, and the sums of their deviations and squared deviations."""
    off = standard.mean.double() - about
    squares = standard.var.double() + off.square()
    return torch.stack([standard.count, standard.count * off, standard.count * squares])


def _tensors(state: State) -> dict[str, Tensor]:
    return {
        f"layers.{index}.{name}": tensor
        for index, layer in enumerate(state.layers)
        for name, tensor in zip(("weight", "bias"), layer, strict=True)
    }
