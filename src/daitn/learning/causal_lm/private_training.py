"""Training a language model, or adapters on one, with differential privacy.

Each record's gradient is that of its own loss: of its question given its answer and, for a share of
them, of the dialogue. Answers are not ranked against one another, as that loss is of several
records. Records are read one after the other, which fits any network, whatever its layers and
however its weights are held, in the memory of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from daitn.learning.causal_lm.models import CausalModel
from daitn.learning.causal_lm.network import LanguageModel
from daitn.learning.causal_lm.rows import TokenRow, context_loss, continuation_scores, tensors
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.causal_lm.tokens import Codec
from daitn.learning.causal_lm.training import optimiser_of, peak_of, schedule
from daitn.learning.corpora.records import QaPair
from daitn.learning.dp_sgd import StepsDone, clip_factors, drawn, noisy_mean, shares
from daitn.learning.optimising import restore, state_bytes
from daitn.learning.recipe import DpSgd, Progress, Savepoints, Trained

__all__ = ["clipped_sums", "train_privately"]


def train_privately(
    model: CausalModel,
    settings: CausalLmConfig,
    pairs: Sequence[QaPair],
    terms: DpSgd,
    watch: Callable[[Progress], None],
    savepoints: Savepoints | None = None,
) -> Trained:
    """Train `model` in place by `terms`, from the latest savepoint on.

    No loss is reported, and no number but those of the terms: they would have to be paid for.
    """
    began_s = time.perf_counter()
    codec, network = model.codec(settings), model.network
    weights = list(network.trainable().values())
    arrived = [weight.detach().clone() for weight in weights]
    peak = peak_of(settings, model)
    optimiser = optimiser_of(weights, peak)
    done = 0
    if savepoints is not None and (kept := savepoints.latest()) is not None:
        done = restore(kept, StepsDone, weights, optimiser).steps
    for step in range(done, terms.steps):
        for options in optimiser.param_groups:
            options["lr"] = peak * schedule((step + 1) / terms.steps)
        spoken = shares(terms, "dialogues", step, len(pairs)) < settings.generation_share
        records = [(pairs[row], bool(spoken[row])) for row in drawn(terms, step, len(pairs))]
        sums = clipped_sums(network, weights, codec, records, terms.clip)
        for weight, mean in zip(weights, noisy_mean(sums, terms, step), strict=True):
            weight.grad = mean.to(weight)
        optimiser.step()
        examples = terms.examples * (step + 1) // terms.steps
        watch(Progress(examples=examples, of_examples=terms.examples, loss=0.0))
        if savepoints is not None and savepoints.due():
            savepoints.keep(state_bytes(StepsDone(steps=step + 1), weights, optimiser))
    if model.seen and settings.keep:
        with torch.no_grad():
            for weight, before in zip(weights, arrived, strict=True):
                weight.lerp_(before, settings.keep)
    model.seen += terms.examples
    return Trained(examples=terms.examples, seconds=time.perf_counter() - began_s)


def clipped_sums(
    network: LanguageModel,
    weights: Sequence[nn.Parameter],
    codec: Codec,
    records: Sequence[tuple[QaPair, bool]],
    clip: float,
) -> list[Tensor]:
    """Sums over records of the gradients of the loss, each clipped to the norm `clip`. A record
    whose gradient is not finite adds nothing. `records`: including whether the dialogue is read,
    too."""
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    for pair, spoken in records:
        loss = _loss(network, codec, pair, spoken)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        found = [
            (number, gradient.float())
            for number, gradient in enumerate(gradients)
            if gradient is not None
        ]
        # In 64 bits no square vanishes: gradients can be made that small.
        squares = [gradient.double().square().sum() for _, gradient in found]
        norm = torch.stack(squares).sum().sqrt()
        factor = float(clip_factors(norm, clip))
        if factor > 0.0:
            for number, gradient in found:
                sums[number].add_(gradient, alpha=factor)
    return sums


def _loss(network: LanguageModel, codec: Codec, pair: QaPair, spoken: bool) -> Tensor:
    row = TokenRow(codec.answer(pair.answer), [codec.question(pair.question)])
    scores, lengths, _ = continuation_scores(network, tensors([row]))
    loss = -(scores / lengths).sum()
    if spoken:
        dialogue = codec.dialogue(pair.question, pair.answer)
        loss = loss + context_loss(network, tensors([TokenRow(dialogue, [])])) / len(dialogue)
    return loss
