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
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from daitn.learning.blur import blur
from daitn.learning.bounded import MOST_GRADIENT, batch_of
from daitn.learning.causal_lm.dealing import Dealer
from daitn.learning.causal_lm.models import Model
from daitn.learning.causal_lm.rows import TokenRow, context_loss, continuation_scores, tensors
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import Codec
from daitn.learning.corpora.records import QaPair
from daitn.learning.recipe import Progress, Trained
from daitn.learning.weights import check_losses

__all__ = ["train"]

_WARM = 0.1
"""Share of a visit over which the learning rate rises."""
_FLOOR = 0.1
"""Share of the peak to which it falls."""
_WEIGHT_DECAY = 0.01
_BETAS = (0.9, 0.98)
"""As in Vaswani et al. 2017; the usual 0.999 remembers longer than a visit lasts."""

Group = Sequence[QaPair]


def train(
    model: Model,
    settings: CausalLmConfig,
    pairs: Sequence[QaPair],
    examples: int,
    seed: int,
    watch: Callable[[Progress], None],
    least_records: int,
) -> Trained:
    """Train `model` in place on `examples` records drawn from `pairs`.

    Raises `DataFault` if the losses of most records are not finite.
    """
    began_s = time.perf_counter()
    rng = random.Random(seed)  # noqa: S311  seeded, not secret
    dealer, codec = Dealer(pairs, rng, least_records), model.codec(settings)
    weights = list(model.network.trainable().values())
    arrived = [weight.detach().clone() for weight in weights]
    peak = settings.learning_rate / (1 + model.seen / settings.learning_rate_halves_after)
    optimiser = torch.optim.AdamW(
        weights, lr=peak, weight_decay=_WEIGHT_DECAY, betas=_BETAS, fused=True
    )
    most_loss = math.log(codec.tokens)  # That of a guess.
    sensitivity = most_loss * math.ceil(examples / dealer.least_per_epoch)
    batch = batch_of(examples, settings.batch)
    done, left_out = 0, 0
    while done < examples:
        groups: Sequence[Group] = dealer.deal(batch, most=examples - done)
        size = sum(map(len, groups))
        done += size
        for options in optimiser.param_groups:
            options["lr"] = peak * _schedule(done / examples)
        loss, own = _loss(model, codec, groups, settings.generation_share, rng)
        if not math.isfinite(loss.item()):
            groups = _usable(model, codec, groups)
            left_out += size - sum(map(len, groups))
            loss = _loss(model, codec, groups, 0.0, rng)[0] if groups else torch.zeros(())
        if groups:
            _step(loss, optimiser, weights)
        told = float(own.nan_to_num(most_loss, most_loss).clamp(0.0, most_loss).mean())
        watch(Progress(examples=done, of_examples=examples, loss=told, sensitivity=sensitivity))
        if 2 * left_out > examples:
            break
    check_losses(left_out, examples)
    blur(weights, peak, seed)
    if model.seen and settings.keep:
        _average_in(weights, arrived, settings.keep)
    model.seen += done
    return Trained(examples=done, seconds=time.perf_counter() - began_s)


def _schedule(done: float) -> float:
    """The learning rate's factor after the share `done` of a visit."""
    return min(1.0, done / _WARM) * max(_FLOOR, 1 - (1 - _FLOOR) * done)


def _loss(
    model: Model, codec: Codec, groups: Sequence[Group], generation_share: float, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """The loss to learn from, and each question's own: its part that no other record has in it."""
    pairs = [pair for group in groups for pair in group]
    loss, own = _channel_loss(model, codec, groups)
    spoken = [pair for pair in pairs if rng.random() < generation_share]
    if spoken:
        dialogues = [TokenRow(codec.dialogue(pair.question, pair.answer), []) for pair in spoken]
        loss = loss + context_loss(model.network, tensors(dialogues))
    return loss, own


@torch.no_grad()
def _usable(model: Model, codec: Codec, groups: Sequence[Group]) -> list[Group]:
    """The groups with a finite loss: a model made for it would fail visibly on one record."""
    return [group for group in groups if bool(_channel_loss(model, codec, [group])[0].isfinite())]


def _channel_loss(model: Model, codec: Codec, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Mean of both channel terms over the records, and the first of each; reads every answer once
    per group."""
    rows: list[TokenRow] = []
    for group in groups:
        questions = [codec.question(pair.question) for pair in group]
        rows.extend(TokenRow(codec.answer(pair.answer), questions) for pair in group)
    scores, lengths, _ = continuation_scores(model.network, tensors(rows))
    total, start, each = torch.zeros(()), 0, []
    for group in groups:
        size = len(group)
        square = scores[start : start + size, :size]
        own_length = lengths[start : start + size, :size].diagonal()
        each.append(-square.diagonal() / own_length)
        total = total + each[-1].sum()
        # A column is a question: which answer makes it most likely?
        total = total + functional.cross_entropy(square.T, torch.arange(size), reduction="sum")
        start += size
    return total / start, torch.cat(each).detach()


def _step(loss: Tensor, optimiser: torch.optim.Optimizer, weights: Sequence[nn.Parameter]) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if bool(nn.utils.clip_grad_norm_(weights, MOST_GRADIENT).isfinite()):
        optimiser.step()


@torch.no_grad()
def _average_in(weights: Sequence[nn.Parameter], arrived: Sequence[Tensor], share: float) -> None:
    for weight, before in zip(weights, arrived, strict=True):
        weight.lerp_(before, share)
