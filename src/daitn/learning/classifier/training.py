"""Training a classifier on one site's table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.network import class_indices, engine_device, forward, scaled
from daitn.learning.classifier.parts import Standard, State, settle
from daitn.learning.classifier.table import Table, different_rows
from daitn.learning.recipe import Progress, Trained
from daitn.learning.weights import check_losses
from daitn.objects.errors import InvalidInput

__all__ = ["merged", "train"]

_REPORTS = 20
"""Progress reports per visit."""


def train(
    state: State,
    config: ClassifierConfig,
    table: Table,
    data: Path,
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
    least_records: int,
) -> Trained:
    """Train `state` in place on `examples` rows of the table from the file `data`. The rows are
    shuffled anew whenever all were used."""
    started = time.perf_counter()
    if examples < 1:
        raise InvalidInput(f"{examples} examples", field="examples", fix="train on at least one")
    if state.columns:
        table = table.arranged(state.columns, data)
    settle(state, config, table.columns)
    targets = class_indices(table.labels, config, data)
    features = _shared(table.features, least_records)
    state.standard = merged(state.standard, features, examples)
    inputs = scaled(features, state.standard)
    _fit(state, config, inputs, targets, examples, seed, watch)
    return Trained(examples=examples, seconds=time.perf_counter() - started)


def _fit(
    state: State,
    config: ClassifierConfig,
    inputs: Tensor,
    targets: Tensor,
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
) -> None:
    """Train on so many examples in batches."""
    device = engine_device()
    inputs, targets = inputs.to(device), targets.to(device)
    layers = [
        (weight.to(device).requires_grad_(), bias.to(device).requires_grad_())
        for weight, bias in state.layers
    ]
    tensors = [tensor for layer in layers for tensor in layer]
    arrived = [tensor.detach().clone() for tensor in tensors]
    optimiser = torch.optim.Adam(tensors, lr=config.learning_rate)
    guess = math.log(len(config.classes))
    reports = _ProgressReports(guess, math.ceil(examples / len(targets)), examples, watch)
    for rows in _batches(len(targets), examples, config.batch, seed):
        batch = rows.to(device)
        losses = _losses(inputs, targets, batch, layers)
        reports.add(losses.detach())
        if not bool((usable := losses.isfinite()).all()):
            batch = batch[usable]
            losses = _losses(inputs, targets, batch, layers)
        if len(batch):
            optimiser.zero_grad()
            objective = losses.mean() + config.proximal / 2 * _distance(tensors, arrived)
            objective.backward()  # type: ignore[no-untyped-call]
            gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
            if all(bool(gradient.isfinite().all()) for gradient in gradients):
                optimiser.step()
    check_losses(reports.not_finite, examples)
    state.layers = [(weight.detach().cpu(), bias.detach().cpu()) for weight, bias in layers]


class _ProgressReports:
    """Reports progress with the mean of losses that are clipped at that of a guess."""

    def __init__(
        self, guess: float, uses: int, examples: int, watch: Callable[[Progress], None]
    ) -> None:
        """`uses`: how often a record is used at most."""
        self._guess = guess
        self._sensitivity = guess * uses
        self._examples = examples
        self._watch = watch
        self._done, self._summed, self._since = 0, 0.0, 0
        self.not_finite = 0

    def add(self, losses: Tensor) -> None:
        self.not_finite += int((~losses.isfinite()).sum())
        clipped = losses.nan_to_num(self._guess, self._guess).clamp(0.0, self._guess)
        self._summed, self._since = self._summed + float(clipped.sum()), self._since + len(losses)
        before, self._done = self._done, self._done + len(losses)
        if before * _REPORTS // self._examples != self._done * _REPORTS // self._examples:
            self._watch(
                Progress(
                    examples=self._done,
                    of_examples=self._examples,
                    loss=self._summed / self._since,
                    sensitivity=self._sensitivity,
                )
            )
            self._summed, self._since = 0.0, 0


def _losses(
    inputs: Tensor, targets: Tensor, batch: Tensor, layers: list[tuple[Tensor, Tensor]]
) -> Tensor:
    scores = forward(inputs[batch], layers)
    return functional.cross_entropy(scores, targets[batch], reduction="none")


def _distance(tensors: list[Tensor], others: list[Tensor]) -> Tensor:
    """Squared Euclidean distance between two sets of weights."""
    gaps = [(a - b).square().sum() for a, b in zip(tensors, others, strict=True)]
    return torch.stack(gaps).sum()


def _batches(rows: int, examples: int, batch: int, seed: int) -> Iterator[Tensor]:
    """The row of each example: consecutive shuffles of all rows, made as they are needed."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    while examples > 0:
        size = min(batch, examples)
        while len(order) < size:
            order = torch.cat((order, torch.randperm(rows, generator=generator)))
        yield order[:size]
        order, examples = order[size:], examples - size


def _shared(features: NDArray[np.float32], least_records: int) -> NDArray[np.float32]:
    """The features, without the values of columns that rest on too few records.

    The scaling of a column travels with the model, exactly. It would tell the value of the only
    record that has one, or how many records differ from all others.
    """
    kept = features.copy()
    once = features[different_rows(features)]
    for column, values in zip(kept.T, once.T, strict=True):
        present = values[np.isfinite(values)]
        _, counts = np.unique(present, return_counts=True)
        usual = counts.max(initial=0)
        unusual = len(present) - usual
        if len(present) < least_records or 0 < unusual < min(least_records, usual):
            column[:] = np.nan
    return kept


def merged(known: Standard | None, features: NDArray[np.float32], examples: int) -> Standard:
    """Mean and variance of each column over what was known and this site's values, weighted by the
    number of examples with a value (Chan, Golub and LeVeque 1979: pairwise update of variances).
    """
    present = np.isfinite(features)
    filled = present.sum(axis=0)
    rows = np.maximum(filled, 1)
    values = np.where(present, features, 0.0).astype(np.float64)
    mean = values.sum(axis=0) / rows
    var = (np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / rows
    seen = examples * (filled / len(features))
    if known is None:
        return Standard(mean=_single(mean), var=_single(var), count=torch.from_numpy(seen))
    old_mean, old_var = known.mean.double().numpy(), known.var.double().numpy()
    count = known.count.numpy() + seen
    share = seen / np.where(count > 0.0, count, 1.0)
    gap = mean - old_mean
    return Standard(
        mean=_single(old_mean + share * gap),
        var=_single((1 - share) * old_var + share * var + share * (1 - share) * gap**2),
        count=torch.from_numpy(count),
    )


def _single(values: NDArray[np.float64]) -> Tensor:
    """As 32-bit floats, clipped: the square of a large value does not fit."""
    most = np.finfo(np.float32).max
    return torch.from_numpy(values.clip(-most, most).astype(np.float32))
