"""Training a classifier with differential privacy.

The clipped gradients of a step are summed without any of them being held: in a layer, a record's
gradient is the product of what reached the layer and of the gradient at its output, and so is the
gradient's norm (Goodfellow 2015, arXiv:1510.01799).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.network import trainable
from daitn.learning.classifier.parts import State
from daitn.learning.dp_sgd import StepsDone, clip_factors, drawn, noisy_mean
from daitn.learning.engine import engine_device
from daitn.learning.optimising import restore, state_bytes
from daitn.learning.recipe import DpSgd, Progress, Savepoints

__all__ = ["clipped_sums", "fit_privately"]

Layers = Sequence[tuple[Tensor, Tensor]]


def fit_privately(
    state: State,
    config: ClassifierConfig,
    inputs: Tensor,
    targets: Tensor,
    terms: DpSgd,
    watch: Callable[[Progress], None],
    savepoints: Savepoints | None,
    *,
    merged: bool,
) -> None:
    """Train `state` in place by `terms`, from the latest savepoint on. `merged`: as in `LocalRule`.

    No loss is reported, and no number but those of the terms: they would have to be paid for.
    """
    device = engine_device()
    inputs, targets = inputs.to(device), targets.to(device)
    layers = trainable(state.layers, device)
    tensors = [tensor for layer in layers for tensor in layer]
    arrived = [tensor.detach().clone() for tensor in tensors]
    optimiser = torch.optim.Adam(tensors, lr=config.learning_rate)
    pull = config.pull(merged=merged)
    done = 0
    if savepoints is not None and (kept := savepoints.latest()) is not None:
        done = restore(kept, StepsDone, tensors, optimiser).steps
    for step in range(done, terms.steps):
        rows = torch.from_numpy(drawn(terms, step, len(targets))).to(device)
        sums = clipped_sums(inputs[rows], targets[rows], layers, terms.clip)
        means = noisy_mean(sums, terms, step)
        for tensor, mean, before in zip(tensors, means, arrived, strict=True):
            tensor.grad = mean + pull * (tensor.detach() - before)
        optimiser.step()
        examples = terms.examples * (step + 1) // terms.steps
        watch(Progress(examples=examples, of_examples=terms.examples, loss=0.0))
        if savepoints is not None and savepoints.due():
            savepoints.keep(state_bytes(StepsDone(steps=step + 1), tensors, optimiser))
    state.layers = [(weight.detach().cpu(), bias.detach().cpu()) for weight, bias in layers]


def clipped_sums(inputs: Tensor, targets: Tensor, layers: Layers, clip: float) -> list[Tensor]:
    """Sums over records of the gradients of the loss, each clipped to the norm `clip`: of each
    layer that of its weight and that of its bias. A record whose gradient is not finite adds
    nothing.

    What is clipped is in 64 bits, in which squares and products of 32-bit numbers neither vanish
    nor overflow: a model can be made whose gradients have squares that are zero.
    """
    reached, outputs = [inputs], list[Tensor]()
    for weight, bias in layers:
        outputs.append(functional.linear(reached[-1], weight, bias))
        reached.append(functional.relu(outputs[-1]))
    losses = functional.cross_entropy(outputs[-1], targets, reduction="sum")
    changes = torch.autograd.grad(losses, outputs)
    with torch.no_grad():
        exact = [
            (change.double(), before.double())
            for change, before in zip(changes, reached, strict=False)
        ]
        squares = torch.zeros(len(targets), dtype=torch.float64, device=inputs.device)
        for change, before in exact:
            squares += change.square().sum(1) * (before.square().sum(1) + 1.0)
        factors = clip_factors(squares.sqrt(), clip)[:, None]
        sums = []
        for change, before in exact:
            scaled = torch.where(factors > 0.0, change * factors, 0.0)
            sums += [scaled.T @ torch.where(factors > 0.0, before, 0.0), scaled.sum(0)]
    return [each.float() for each in sums]
