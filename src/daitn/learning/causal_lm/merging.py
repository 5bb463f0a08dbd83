"""Merging language models: all weights of one from scratch, the adapters of an imported one.

Adapters are merged factor by factor, as is usual (Zhang et al. 2023, "FedIT", arXiv:2305.05644):
the product of two means is not the mean of the products, and nears it as the models agree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file

from daitn.learning.aggregation.merging import TensorFile, check_parts, merge_tensors, unfit
from daitn.learning.causal_lm import models
from daitn.learning.causal_lm.settings import (
    ADAPTER,
    BASE_CONFIG,
    CHAT,
    TOKENIZER,
    WEIGHTS,
    CausalLmConfig,
)
from daitn.learning.local.companions import (
    COMPANIONS,
    Companions,
    read_companions,
    write_companions,
)
from daitn.learning.local.variates import mean_variate
from daitn.learning.recipe import MergeTask
from daitn.learning.weights import Shape
from daitn.objects.errors import DaitnError

__all__ = ["merge"]


def merge(task: MergeTask, settings: CausalLmConfig, out: Path, moments: Path) -> tuple[str, ...]:
    """See `Merging.merge`."""
    base, trained = Path(task.base), [Path(model) for model in task.models]
    part = ADAPTER if settings.base else WEIGHTS
    _check_alike(base, trained, settings)
    with tempfile.TemporaryDirectory() as scratch:
        start = _start(base, settings, Path(scratch) / "base")
        starts = {
            one: TensorFile(_start(Path(one), settings, Path(scratch) / str(number)))
            for number, one in enumerate(dict.fromkeys(task.starts))
        }
        tensors, kept = merge_tensors(
            TensorFile(start),
            [_opened(number, model / part) for number, model in enumerate(trained)],
            task.shares,
            task.rule,
            seed=task.seed,
            moments=TensorFile(Path(task.moments)) if task.moments else {},
            single=task.single,
            alike=task.alike,
            starts=[starts[one] for one in task.starts],
            scales=task.scales,
        )
        before = models.seen(start)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    variate = mean_variate(
        lambda: (_companions(number, model, shapes) for number, model in enumerate(trained)),
        task.shares,
    )
    write_companions(Companions(variate=variate), list(shapes), out)
    models.save_weights(tensors, before + round(sum(task.shares)), out / part)
    if kept:
        save_file(kept, moments)
    if settings.base:
        return models.unchanged(base)
    (out / TOKENIZER).write_bytes((base / TOKENIZER).read_bytes())
    return ()


def _start(model: Path, settings: CausalLmConfig, scratch: Path) -> Path:
    """The weights of a model from which others were trained; a fresh one has none on disk."""
    part = ADAPTER if settings.base else WEIGHTS
    if (model / part).is_file():
        return model / part
    scratch.mkdir()
    models.save(models.load(model, settings), settings, model, scratch)
    return scratch / part


def _opened(number: int, path: Path) -> TensorFile:
    try:
        return TensorFile(path)
    except DaitnError as error:
        raise unfit(number, error.problem) from None


def _companions(number: int, model: Path, shapes: Mapping[str, Shape]) -> Companions:
    try:
        return read_companions(model, shapes)
    except DaitnError as error:
        raise unfit(number, error.problem) from None


def _check_alike(base: Path, trained: Sequence[Path], settings: CausalLmConfig) -> None:
    """Raise `Corrupt` for a model whose vocabulary differs from that of the base, or with further
    parts."""
    names = (BASE_CONFIG, TOKENIZER, CHAT) if settings.base else (TOKENIZER,)
    first = [_bytes_of(base / name) for name in names]
    for number, model in enumerate(trained):
        check_parts(number, model, base, WEIGHTS, ADAPTER, COMPANIONS)
        for name, expected in zip(names, first, strict=True):
            if _bytes_of(model / name) != expected:
                raise unfit(
                    number,
                    f"its {name} is another than that of the model that it was trained from",
                    fix="merge models that came from one that has visited a site",
                )


def _bytes_of(part: Path) -> bytes | None:
    """None for a part that the model does not have."""
    return part.read_bytes() if part.is_file() else None
