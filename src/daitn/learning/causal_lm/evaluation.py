"""How well a model picks the right option, and what it reveals of records that it learned from.

An option's score is log p(question | option) in natural units; `training` explains why. A probe's
loss is that of the right option per token of the question, as in training.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from daitn.learning.causal_lm.models import CausalModel
from daitn.learning.causal_lm.rows import TokenRow, continuation_scores, tensors
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.corpora.records import OPTIONS, MultipleChoice
from daitn.learning.exposure import unexposed
from daitn.learning.recipe import LabelMeasured, Measured
from daitn.learning.weights import best

__all__ = ["accuracy", "exposure", "picks"]

_ROWS_AT_ONCE = 64


def accuracy(
    model: CausalModel, settings: CausalLmConfig, choices: Sequence[MultipleChoice]
) -> Measured:
    """The share of items whose right option has the best score, with its binomial error."""
    chosen = picks(model, settings, choices)
    right = [pick == item.answer for pick, item in zip(chosen, choices, strict=True)]
    by_label: dict[str, list[bool]] = defaultdict(list)
    for item, hit in zip(choices, right, strict=True):
        by_label[item.label].append(hit)
    value = sum(right) / len(right)
    return Measured(
        metric="accuracy",
        value=value,
        items=len(right),
        standard_error=math.sqrt(value * (1 - value) / len(right)),
        by_label={
            label: LabelMeasured(value=sum(hits) / len(hits), items=len(hits))
            for label, hits in sorted(by_label.items())
        },
    )


def exposure(
    model: CausalModel,
    settings: CausalLmConfig,
    choices: Sequence[MultipleChoice],
    member: Sequence[bool],
) -> Measured:
    """How often an attack by the losses of probes is wrong about which of them are members."""
    codec = model.codec(settings)
    rows = [
        TokenRow(codec.answer(item.options[item.answer]), [codec.question(item.question)])
        for item in choices
    ]
    scores, lengths = _read(model, rows)
    losses = -(scores / lengths).double().numpy()
    return unexposed(losses, np.array(member))


def picks(
    model: CausalModel, settings: CausalLmConfig, choices: Sequence[MultipleChoice]
) -> list[int]:
    """The index of the option that the model chooses, per item; -1 means none."""
    codec = model.codec(settings)
    rows = [
        TokenRow(codec.answer(option), [codec.question(item.question)])
        for item in choices
        for option in item.options
    ]
    scores, _ = _read(model, rows)
    return [int(pick) for pick in best(scores.view(-1, OPTIONS))]


@torch.inference_mode()
def _read(model: CausalModel, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the rows' only continuations, and their lengths in tokens."""
    # Texts of similar length together, so that little padding is computed.
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    scores, lengths = torch.zeros(len(rows)), torch.zeros(len(rows))
    for start in range(0, len(order), _ROWS_AT_ONCE):
        chosen = order[start : start + _ROWS_AT_ONCE]
        scored, counted, _ = continuation_scores(model.network, tensors([rows[i] for i in chosen]))
        scores[chosen], lengths[chosen] = scored[:, 0].cpu(), counted[:, 0].cpu()
    return scores, lengths
