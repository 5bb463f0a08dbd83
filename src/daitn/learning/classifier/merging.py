"""Merging classifiers that learned from different tables.

Each site scales its columns by what it and the model have seen of them. The merged model scales
them by all examples together, if the model's owner does not state how. Its weights are merged as
they are: to tell those of each model in the common scale first would magnify what it never learned,
in columns that hardly vary at its site (digits, two classes at each of five sites: 0.57 after ten
rounds instead of 0.69).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from daitn.learning.aggregation.merging import TensorFile, check_parts, merge_tensors, unfit
from daitn.learning.aggregation.screening import LEAST_SCREENED, bounded_shares
from daitn.learning.classifier import parts
from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.features import FEATURES, WEIGHTS
from daitn.learning.classifier.parts import Standard, State
from daitn.learning.classifier.scale import stated
from daitn.learning.local.companions import COMPANIONS, Companions
from daitn.learning.local.variates import mean_variate
from daitn.learning.recipe import MergeTask
from daitn.objects.errors import DaitnError
from daitn.objects.merging import Reduces

__all__ = ["merge", "pooled", "usual_columns"]

_FURTHEST = 3.0
"""Multiple of the usual root mean square distance from the median, in a column, for a model's
values: as for updates."""
_MOST_SEEN = 1e12
"""Examples that a model has seen: sums over more may leave the range of numbers."""
_MOST = torch.finfo(torch.float32).max


def merge(task: MergeTask, config: ClassifierConfig, out: Path, moments: Path) -> None:
    """See `Merging.merge`."""
    base = parts.read(Path(task.base), config)
    for number, model in enumerate(task.models):
        check_parts(number, Path(model), Path(task.base), WEIGHTS, FEATURES, COMPANIONS)
    models = [_read(number, Path(model), base, config) for number, model in enumerate(task.models)]
    columns = base.columns or usual_columns([model.columns for model in models])
    models = [_arranged(number, model, columns) for number, model in enumerate(models)]
    variate = mean_variate(lambda: (model.companions for model in models), task.shares)
    parts.settle(base, config, columns)
    starts = _starts(task, base, config)
    scale = stated(config.ranges, columns) if config.ranges else _scale(base, models, starts, task)
    tensors, kept = merge_tensors(
        _tensors(base),
        [_tensors(model) for model in models],
        task.shares,
        task.rule,
        seed=task.seed,
        moments=TensorFile(Path(task.moments)) if task.moments else {},
        single=task.single,
        alike=task.alike,
        starts=[_tensors(start) for start in starts],
        scales=task.scales,
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
    standard = state.standard
    if not state.layers or standard is None:
        raise unfit(number, "it has not learned anything")
    if bool((standard.var < 0.0).any()):
        raise unfit(number, "the scale of its columns is none")
    if base.columns and sorted(state.columns) != sorted(base.columns):
        raise unfit(number, "it reads other columns")
    return state


def _starts(task: MergeTask, base: State, config: ClassifierConfig) -> list[State]:
    """The model from which each was trained."""
    found = {task.base: base}
    for number, start in enumerate(task.starts):
        if start in found:
            continue
        found[start] = parts.read(Path(start), config)
        if found[start].columns not in ((), base.columns):
            raise unfit(number, "it was trained from a model that reads other columns")
        parts.settle(found[start], config, base.columns)
    return [found[start] for start in task.starts or (task.base,) * len(task.models)]


def usual_columns(models: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The columns that most models read, in the order of the first of these models."""
    read = Counter(tuple(sorted(columns)) for columns in models)
    usual = read.most_common(1)[0][0]
    return next(columns for columns in models if tuple(sorted(columns)) == usual)


def _arranged(number: int, state: State, columns: tuple[str, ...]) -> State:
    """A model of these columns, in this order: until a model has columns, each site has its own."""
    if sorted(state.columns) != sorted(columns):
        raise unfit(number, "it reads other columns")
    return parts.arranged(state, columns)


def _scale(
    base: State, models: Sequence[State], starts: Sequence[State], task: MergeTask
) -> Standard:
    """The scale of all examples, or, if models may lie, the median of the models' scales."""
    scales = [model.standard for model in models if model.standard is not None]
    if task.rule.reduction is Reduces.MEETING:
        return averaged(scales, task.shares)
    if task.rule.reduction is Reduces.MEAN or len(scales) == 1:
        before = [start.standard for start in starts]
        return pooled(base.standard, scales, before, task.shares, task.single)
    return Standard(
        mean=torch.stack([one.mean for one in scales]).quantile(0.5, dim=0),
        var=torch.stack([one.var for one in scales]).quantile(0.5, dim=0),
        count=torch.stack([one.count for one in scales]).quantile(0.5, dim=0),
    )


def pooled(
    base: Standard | None,
    models: Sequence[Standard],
    starts: Sequence[Standard | None],
    shares: Sequence[float],
    single: Sequence[int],
) -> Standard:
    """The scale over what `base` has seen and what each model has seen since its start.

    None has seen more than the examples that it counts for; of the `single` sites, none counts for
    many more than another. A model alone has no share: it may be a secure sum of several.
    """
    # Sums about a near value keep their digits; that of a liar may be far.
    about = torch.stack([one.mean for one in models]).double().median(dim=0).values
    since = torch.stack(
        [_sums(one, about) - _sums(start, about) for one, start in zip(models, starts, strict=True)]
    )
    if len(models) > 1:
        counted = torch.tensor(shares, dtype=torch.float64)
        if rows := list(single):
            counted[rows] = bounded_shares([shares[k] for k in rows])
        since = _bounded(since, counted)
    count, first, second = _sums(base, about) + since.sum(dim=0)
    seen = count.clamp_min(1e-9)
    mean = first / seen
    return Standard(
        mean=(about + mean).float(),
        var=(second / seen - mean.square()).clamp(0.0, _MOST).float(),
        count=count.clamp_min(0.0),
    )


def _bounded(since: Tensor, shares: Tensor) -> Tensor:
    """(N, 3, columns): what models have seen, with no more examples than their shares, and among
    enough of them with values not much further off than usual. A column without values, or with the
    same one throughout, is usual: only the other models' say how far off values are."""
    counts = since[:, :1].clamp_min(0.0)
    means = since[:, 1:] / counts.clamp_min(1e-9)
    squares = torch.maximum(means[:, 1:], means[:, :1].square())
    means = torch.cat([torch.ones_like(counts), means[:, :1], squares], dim=1)
    if len(since) >= LEAST_SCREENED:
        off = squares[:, 0].masked_fill((squares <= 0.0)[:, 0], torch.nan)
        usual = off.nanmedian(dim=0).values
        within = (_FURTHEST**2 * usual / off).clamp_max(1.0).nan_to_num(1.0)
        means = means * torch.stack([torch.ones_like(within), within.sqrt(), within], dim=1)
    return means * torch.minimum(counts, shares[:, None, None])


def averaged(models: Sequence[Standard], shares: Sequence[float]) -> Standard:
    """Average of models whose pasts may overlap, so that examples cannot be told apart: the mean of
    their scales, with the count of the one that has seen most."""
    counts = torch.stack([one.count for one in models]).double()
    weights = torch.tensor(shares).double()[:, None] * (counts > 0.0)
    weights /= weights.sum(dim=0).clamp_min(1e-9)
    about = models[0].mean.double()
    off = torch.stack([one.mean for one in models]).double() - about
    squares = torch.stack([one.var for one in models]).double() + off.square()
    mean = (weights * off).sum(dim=0)
    return Standard(
        mean=(about + mean).float(),
        var=((weights * squares).sum(dim=0) - mean.square()).clamp_min(0.0).float(),
        count=counts.amax(dim=0),
    )


def _sums(standard: Standard | None, about: Tensor) -> Tensor:
    """(3, columns): examples, and the sums of their deviations and squared deviations."""
    if standard is None:
        return torch.zeros(3, len(about)).double()
    off = standard.mean.double() - about
    squares = standard.var.double() + off.square()
    count = standard.count.clamp_max(_MOST_SEEN)
    return torch.stack([count, count * off, count * squares])


def _tensors(state: State) -> dict[str, Tensor]:
    return {
        f"layers.{index}.{name}": tensor
        for index, layer in enumerate(state.layers)
        for name, tensor in zip(("weight", "bias"), layer, strict=True)
    }
