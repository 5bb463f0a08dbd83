"""Training a classifier on one site's table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from daitn.learning.blur import blur
from daitn.learning.bounded import MOST_GRADIENT, batch_of
from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.network import class_indices, forward, scaled
from daitn.learning.classifier.parts import State, settle
from daitn.learning.classifier.scale import merged, scale_of, shared
from daitn.learning.classifier.table import Table
from daitn.learning.engine import engine_device
from daitn.learning.recipe import Progress, Trained
from daitn.learning.weights import check_losses
from daitn.objects.errors import InvalidInput

__all__ = ["train"]

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
    features = shared(table.features, least_records)
    state.standard = merged(state.standard, scale_of(features, examples))
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
    for rows in _batches(len(targets), examples, batch_of(examples, config.batch), seed):
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
            if bool(clip_grad_norm_(tensors, MOST_GRADIENT).isfinite()):
                optimiser.step()
    check_losses(reports.not_finite, examples)
    blur(tensors, config.learning_rate, seed)
    with torch.no_grad():  # A column without values here keeps its weights, as its scale.
        empty = ~inputs.any(dim=0)
        tensors[0][:, empty] = arrived[0][:, empty]
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
    rng = np.random.default_rng(seed)  # PyTorch's takes 32 bits of the seed, which can be tried.
    order = np.zeros(0, np.int64)
    while examples > 0:
        size = min(batch, examples)
        while len(order) < size:
            order = np.concatenate((order, rng.permutation(rows)))
        yield torch.from_numpy(order[:size])
        order, examples = order[size:], examples - size
