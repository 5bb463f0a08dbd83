"""Training a classifier on one site's table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from daitn.learning.bounded import MOST_GRADIENT, batch_of
from daitn.learning.classifier.config import REPORTS, ClassifierConfig
from daitn.learning.classifier.network import class_indices, forward, scaled, trainable
from daitn.learning.classifier.parts import State, arranged, settle
from daitn.learning.classifier.private_training import fit_privately
from daitn.learning.classifier.scale import merged, scale_of, shared, stated
from daitn.learning.classifier.table import Table
from daitn.learning.engine import engine_device
from daitn.learning.local.companions import Companions
from daitn.learning.local.distillation import distilled
from daitn.learning.local.steps import Steps
from daitn.learning.optimising import restore, state_bytes
from daitn.learning.recipe import DpSgd, Progress, Savepoints, Trained
from daitn.learning.weight_noise import blur
from daitn.learning.weights import check_losses
from daitn.objects.errors import InvalidInput
from daitn.objects.merging import LocalRule

__all__ = ["train"]

_NOTHING_MORE = LocalRule()


def train(
    state: State,
    config: ClassifierConfig,
    table: Table,
    data: Path,
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
    least_records: int,
    savepoints: Savepoints | None = None,
    rule: LocalRule = _NOTHING_MORE,
    own: State | None = None,
    privacy: DpSgd | None = None,
) -> Trained:
    """Train `state` in place on `examples` rows of the table from the file `data`, from the visit's
    latest savepoint on. The rows are reshuffled whenever all were used, unless `privacy` determines
    the draws.

    `rule`: what the algorithm asks for; `own`: the model that the site made of the table before.
    """
    started = time.perf_counter()
    if examples < 1:
        raise InvalidInput(f"{examples} examples", field="examples", fix="train on at least one")
    if state.columns:
        table = table.arranged(state.columns, data)
    settle(state, config, table.columns)
    targets = class_indices(table.labels, config.classes, data)
    features = table.features
    if config.ranges:
        state.standard = stated(config.ranges, table.columns)
    else:
        features = shared(features, least_records)
        state.standard = merged(state.standard, scale_of(features, examples))
    inputs = scaled(features, state.standard)
    if privacy is not None:
        fit_privately(
            state, config, inputs, targets, privacy, watch, savepoints, merged=rule.merged
        )
        return Trained(examples=privacy.examples, seconds=time.perf_counter() - started)
    kept = Companions()
    if own is not None and set(own.columns) == set(state.columns):
        kept = arranged(own, state.columns).companions
    _fit(state, config, inputs, targets, examples, seed, watch, savepoints, rule, kept.variate)
    return Trained(examples=examples, seconds=time.perf_counter() - started)


def _fit(
    state: State,
    config: ClassifierConfig,
    inputs: Tensor,
    targets: Tensor,
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
    savepoints: Savepoints | None,
    rule: LocalRule,
    own: Sequence[Tensor],
) -> None:
    """Train on this many examples, in batches."""
    device = engine_device()
    inputs, targets = inputs.to(device), targets.to(device)
    layers = trainable(state.layers, device)
    tensors = [tensor for layer in layers for tensor in layer]
    local = Steps(rule, tensors, state.companions, own, config.pull(merged=rule.merged))
    taught = _taught(inputs, layers) if rule.distillation else None
    optimiser = torch.optim.Adam(tensors, lr=config.learning_rate)
    guess = math.log(len(config.classes))
    reports = _ProgressReports(guess, math.ceil(examples / len(targets)), examples, watch)
    steps = 0
    if savepoints is not None and (kept := savepoints.latest()) is not None:
        before = restore(kept, _SoFar, tensors, optimiser)
        steps, reports.so_far, local.rates = before.steps, before.reports, before.rates
    # Earlier draws are repeated, as they follow from the seed.
    batches = _batches(len(targets), examples, batch_of(examples, config.batch), seed)
    for step, rows in enumerate(islice(batches, steps, None), start=steps + 1):
        batch = rows.to(device)
        losses = _losses(inputs, targets, batch, layers)
        reports.add(losses.detach())
        if not bool((usable := losses.isfinite()).all()):
            batch = batch[usable]
            losses = _losses(inputs, targets, batch, layers)
        if len(batch):
            optimiser.zero_grad()
            objective = losses.mean()
            if taught is not None:
                scores = forward(inputs[batch], layers)
                objective += rule.distillation * distilled(scores, taught[batch]).mean()
            objective.backward()  # type: ignore[no-untyped-call]
            local.pull()
            if bool(clip_grad_norm_(tensors, MOST_GRADIENT).isfinite()):
                optimiser.step()
                local.stepped(config.learning_rate)
        if savepoints is not None and savepoints.due():
            so_far = _SoFar(steps=step, reports=reports.so_far, rates=local.rates)
            savepoints.keep(state_bytes(so_far, tensors, optimiser))
    check_losses(reports.so_far.not_finite, examples)
    blur(tensors, config.learning_rate, seed)
    with torch.no_grad():  # A column without values here keeps its weights, as its scale.
        empty = ~inputs.any(dim=0)
        tensors[0][:, empty] = local.arrived[0][:, empty]
    state.companions = local.after(optimiser, seed)
    if state.companions.variate:  # Nothing pulls there at this site.
        state.companions.variate[0][:, empty] = 0.0
    state.layers = [(weight.detach().cpu(), bias.detach().cpu()) for weight, bias in layers]


class _Reported(msgspec.Struct, kw_only=True):
    """The basis of progress reports."""

    done: int = 0
    summed: float = 0.0
    """Sum of the losses since the last report."""
    since: int = 0
    """Examples since then."""
    not_finite: int = 0


class _SoFar(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a visit at a savepoint."""

    steps: int
    reports: _Reported
    rates: float


class _ProgressReports:
    """Reports progress with the mean of losses clipped at that of a guess."""

    def __init__(
        self, guess: float, uses: int, examples: int, watch: Callable[[Progress], None]
    ) -> None:
        """`uses`: how often a record is used at most."""
        self._guess = guess
        self._sensitivity = guess * uses
        self._examples = examples
        self._watch = watch
        self.so_far = _Reported()

    def add(self, losses: Tensor) -> None:
        now = self.so_far
        now.not_finite += int((~losses.isfinite()).sum())
        clipped = losses.nan_to_num(self._guess, self._guess).clamp(0.0, self._guess)
        now.summed, now.since = now.summed + float(clipped.sum()), now.since + len(losses)
        before, now.done = now.done, now.done + len(losses)
        if before * REPORTS // self._examples != now.done * REPORTS // self._examples:
            self._watch(
                Progress(
                    examples=now.done,
                    of_examples=self._examples,
                    loss=now.summed / now.since,
                    sensitivity=self._sensitivity,
                )
            )
            now.summed, now.since = 0.0, 0


def _losses(
    inputs: Tensor, targets: Tensor, batch: Tensor, layers: list[tuple[Tensor, Tensor]]
) -> Tensor:
    scores = forward(inputs[batch], layers)
    return functional.cross_entropy(scores, targets[batch], reduction="none")


@torch.no_grad()
def _taught(inputs: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The arriving model's predictions for each record: (records, classes) scores."""
    return forward(inputs, layers)


def _batches(rows: int, examples: int, batch: int, seed: int) -> Iterator[Tensor]:
    """The row of each example: consecutive shuffles of all rows, made on demand."""
    rng = np.random.default_rng(seed)  # PyTorch's takes 32 bits of the seed, which can be tried.
    order = np.zeros(0, np.int64)
    while examples > 0:
        size = min(batch, examples)
        while len(order) < size:
            order = np.concatenate((order, rng.permutation(rows)))
        yield torch.from_numpy(order[:size])
        order, examples = order[size:], examples - size
