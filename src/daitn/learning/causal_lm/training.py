"""One visit: what a model learns from the records of one site.

The model reads an answer first and then the questions ("noisy channel": Min et al. 2022,
arXiv:2108.04106). By Bayes, p(answer | question) is proportional to p(question | answer) if the
candidate answers are equally likely a priori, so one pass ranks them. The loss is the sum of

- the negative log-likelihood per token of each question given its answer;
- the cross-entropy of picking the right answer among those about the same topic;
- for a share of the records, the negative log-likelihood per token of question, then answer, which
  enables the model to answer.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from daitn.learning.bounded import MOST_GRADIENT, batch_of
from daitn.learning.causal_lm.dealing import Dealer
from daitn.learning.causal_lm.models import CausalModel
from daitn.learning.causal_lm.network import LanguageModel
from daitn.learning.causal_lm.replicas import Replicas
from daitn.learning.causal_lm.rows import ReadRows, TokenRow, context_loss, reads
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import Codec
from daitn.learning.corpora.records import QaPair
from daitn.learning.local.steps import Steps
from daitn.learning.optimising import restore, state_bytes
from daitn.learning.recipe import Progress, Savepoints, Trained
from daitn.learning.weight_noise import blur
from daitn.learning.weights import check_losses
from daitn.objects.merging import LocalRule

__all__ = ["optimiser_of", "peak_of", "schedule", "train"]

_WARM = 0.1
"""Share of a visit over which the learning rate rises."""
_FLOOR = 0.1
"""Share of the peak to which it falls."""
_WEIGHT_DECAY = 0.01
_BETAS = (0.9, 0.98)
"""As in Vaswani et al. 2017; the usual 0.999 remembers longer than a visit lasts."""
_NOTHING_MORE = LocalRule()

Group = Sequence[QaPair]


def train(
    model: CausalModel,
    settings: CausalLmConfig,
    pairs: Sequence[QaPair],
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
    least_records: int,
    savepoints: Savepoints | None = None,
    others: Sequence[LanguageModel] = (),
    rule: LocalRule = _NOTHING_MORE,
    variate: Sequence[Tensor] = (),
) -> Trained:
    """Train `model` in place on `examples` records drawn from `pairs`, from the visit's latest
    savepoint on. `others`: its network on further devices, which compute with it. `rule`: the
    algorithm's requirements; `variate`: the site's last one.

    Raises `DataFault` if the losses of most records are not finite.
    """
    began_s = time.perf_counter()
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    dealer, codec = Dealer(pairs, rng, least_records), model.codec(settings)
    replicas = Replicas([model.network, *others])
    weights = replicas.weights
    local = Steps(rule, weights, model.companions, variate, usual_mu=0.0)
    peak = peak_of(settings, model)
    optimiser = optimiser_of(weights, peak)
    most_loss = math.log(codec.tokens)  # That of a guess.
    sensitivity = most_loss * math.ceil(examples / dealer.least_per_epoch)
    # Each device reads the same number of pieces, none larger than on a single device.
    rounds = -(-settings.gradient_accumulation // len(replicas))
    layout = _Layout(codec, rounds * len(replicas), replicas.first.device)
    steps, done, left_out = 0, 0, 0
    if savepoints is not None and (state := savepoints.latest()) is not None:
        before = restore(state, _SoFar, weights, optimiser)
        steps, done, left_out = before.steps, before.done, before.left_out
        local.rates = before.rates
        replicas.spread()
    batches = _batches(dealer, layout, settings, examples, rng, steps)
    batch = next(batches, None)
    while batch is not None and 2 * left_out <= examples:
        done += batch.records
        for options in optimiser.param_groups:
            options["lr"] = peak * schedule(done / examples)
        optimiser.zero_grad()
        loss, own = _descend(replicas, batch)
        following = next(batches, None)  # Laid out while a GPU is busy with this one.
        if not math.isfinite(loss.item()):
            groups = _usable(replicas.first, layout, batch.groups)
            left_out += batch.records - sum(map(len, groups))
            optimiser.zero_grad()
            if groups:
                _descend(replicas, layout.batch(groups))
        local.pull()
        if _step(optimiser, weights):
            local.stepped(peak * schedule(done / examples))
        replicas.spread()
        mean_loss = float(own.nan_to_num(most_loss, most_loss).clamp(0.0, most_loss).mean())
        watch(
            Progress(examples=done, of_examples=examples, loss=mean_loss, sensitivity=sensitivity)
        )
        batch, steps = following, steps + 1
        if savepoints is not None and savepoints.due():
            so_far = _SoFar(steps=steps, done=done, left_out=left_out, rates=local.rates)
            savepoints.keep(state_bytes(so_far, weights, optimiser))
    check_losses(left_out, examples)
    blur(weights, peak, seed)
    if model.seen and (keep := settings.kept(merged=rule.merged)):
        _average_in(weights, local.arrived, keep)
    model.companions = local.after(optimiser, seed)
    model.seen += done
    return Trained(examples=done, seconds=time.perf_counter() - began_s)


class _SoFar(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a visit at a savepoint."""

    steps: int
    done: int
    """Number of records."""
    left_out: int
    rates: float


def peak_of(settings: CausalLmConfig, model: CausalModel) -> float:
    """The peak learning rate of a visit: the more a model has seen, the lower."""
    return settings.learning_rate / (1 + model.seen / settings.learning_rate_halves_after)


def optimiser_of(weights: Sequence[nn.Parameter], peak: float) -> torch.optim.Optimizer:
    """The optimiser of the weights."""
    return torch.optim.AdamW(weights, lr=peak, weight_decay=_WEIGHT_DECAY, betas=_BETAS, fused=True)


def schedule(done: float) -> float:
    """Factor on the learning rate after the share `done` of a visit."""
    return min(1.0, done / _WARM) * max(_FLOOR, 1 - (1 - _FLOOR) * done)


class _Piece(NamedTuple):
    """What is held in memory at once."""

    groups: Sequence[Group]
    rows: ReadRows
    dialogues: ReadRows | None
    """The records that are also read question first."""


class _Batch(NamedTuple):
    """The input of a step."""

    pieces: Sequence[_Piece]
    records: int
    spoken: int
    """Predicted tokens in dialogues."""

    @property
    def groups(self) -> list[Group]:
        return [group for piece in self.pieces for group in piece.groups]


class _Layout:
    """Lays groups out as tensors, for devices of one kind."""

    def __init__(self, codec: Codec, pieces: int, device: torch.device) -> None:
        self._codec = codec
        self._pieces = pieces
        self._device = device

    def batch(self, groups: Sequence[Group], spoken: Callable[[], bool] = lambda: False) -> _Batch:
        """`spoken`: whether a record is also read question first."""
        records = sum(map(len, groups))
        pieces, piece, begun = list[_Piece](), list[Group](), 0
        for number, group in enumerate(groups, start=1):
            piece.append(group)
            begun += len(group)
            if begun * self._pieces >= (len(pieces) + 1) * records or number == len(groups):
                pieces.append(self._piece(piece, spoken))
                piece = []
        spoken_first = (piece.dialogues.batches for piece in pieces if piece.dialogues is not None)
        predicted = sum(len(rows.read) for batches in spoken_first for rows in batches)
        return _Batch(pieces, records, predicted)

    def _piece(self, groups: Sequence[Group], spoken: Callable[[], bool]) -> _Piece:
        codec, rows, dialogues = self._codec, list[TokenRow](), list[TokenRow]()
        for group in groups:
            questions = [codec.question(pair.question) for pair in group]
            rows.extend(TokenRow(codec.answer(pair.answer), questions) for pair in group)
            dialogues.extend(
                TokenRow(codec.dialogue(pair.question, pair.answer), [])
                for pair in group
                if spoken()
            )
        spoken_first = reads(dialogues, self._device) if dialogues else None
        return _Piece(groups, reads(rows, self._device), spoken_first)


def _batches(
    dealer: Dealer,
    layout: _Layout,
    settings: CausalLmConfig,
    examples: int,
    rng: random.Random,
    after: int = 0,
) -> Iterator[_Batch]:
    """The batches of all steps after the first `after`, dealt again from the seed."""
    for groups, spoken in islice(_dealt(dealer, settings, examples, rng), after, None):
        yield layout.batch(groups, iter(spoken).__next__)


def _dealt(
    dealer: Dealer, settings: CausalLmConfig, examples: int, rng: random.Random
) -> Iterator[tuple[list[list[QaPair]], list[bool]]]:
    """The groups of each step, and which of their records are also read question first."""
    size, dealt = batch_of(examples, settings.batch), 0
    while dealt < examples:
        groups = dealer.deal(size, most=examples - dealt)
        records = sum(map(len, groups))
        dealt += records
        yield groups, [rng.random() < settings.generation_share for _ in range(records)]


def _descend(replicas: Replicas, batch: _Batch) -> tuple[Tensor, Tensor]:
    """Add the gradient of a batch's loss to the weights'.

    Returns that loss, and each question's own: its part that no other record has in it. In how many
    pieces a batch is read, and where, changes neither, but for rounding.
    """

    def learn(network: LanguageModel, piece: _Piece) -> tuple[Tensor, Tensor]:
        summed, own = _channel_loss(network, piece)
        loss = summed / batch.records
        if piece.dialogues is not None and batch.spoken:
            dialogue_loss = sum(context_loss(network, rows) for rows in piece.dialogues.batches)
            loss = loss + dialogue_loss / batch.spoken
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), own

    losses, each = zip(*replicas.each(learn, batch.pieces), strict=True)
    replicas.gather()
    return torch.stack(replicas.together(losses)).sum(), torch.cat(replicas.together(each))


@torch.no_grad()
def _usable(network: LanguageModel, layout: _Layout, groups: Sequence[Group]) -> list[Group]:
    """The groups with a finite loss: a model made for it would fail visibly on one record."""

    def finite(group: Group) -> bool:
        (piece,) = layout.batch([group]).pieces
        return bool(_channel_loss(network, piece)[0].isfinite())

    return [group for group in groups if finite(group)]


def _channel_loss(network: LanguageModel, piece: _Piece) -> tuple[Tensor, Tensor]:
    """Sum of both channel terms over the records, and the first of each; reads every answer once
    per group."""
    scores, lengths = piece.rows.scores(network)
    total, start, each = torch.zeros((), device=scores.device), 0, []
    for group in piece.groups:
        size = len(group)
        square = scores[start : start + size, :size]
        own_length = lengths[start : start + size, :size].diagonal()
        each.append(-square.diagonal() / own_length)
        total = total + each[-1].sum()
        # A column is a question: which answer makes it most likely?
        right = torch.arange(size, device=scores.device)
        total = total + functional.cross_entropy(square.T, right, reduction="sum")
        start += size
    return total, torch.cat(each).detach()


def _step(optimiser: torch.optim.Optimizer, weights: Sequence[nn.Parameter]) -> bool:
    """Make a step, unless the gradient is not finite."""
    finite = bool(nn.utils.clip_grad_norm_(weights, MOST_GRADIENT).isfinite())
    if finite:
        optimiser.step()
    return finite


@torch.no_grad()
def _average_in(weights: Sequence[nn.Parameter], arrived: Sequence[Tensor], share: float) -> None:
    for weight, before in zip(weights, arrived, strict=True):
        weight.lerp_(before, share)
