"""SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: stochastic controlled averaging for federated
learning", arXiv:1910.06378, algorithm 1 with its option II.

Sites whose data differ drift apart. Each knows where its own steps led last time (its variate c_i)
and where those of all led (c, their mean), and corrects each step by c - c_i. A variate is what a
visit left, over the sum of its step sizes: anyone with the two models can compute it, so that it
tells no more than they do, and the noise on them is in it. It travels with the model that it comes
from. So a site keeps no state: it is given the model that it made last time.

The article's steps are gradients. Those here are the optimiser's: the same with plain gradient
descent, and the steps' mean with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from daitn.learning.aggregation.screening import bounded_shares, shortened
from daitn.learning.local.companions import Companions

__all__ = ["Variates", "mean_variate"]


class Variates:
    """Corrects the steps of one visit."""

    def __init__(self, common: Sequence[Tensor], own: Sequence[Tensor]) -> None:
        """`common`: c; `own`: c_i, both with the shapes of the weights. For a site without one, c:
        it corrects nothing, and the merge then has its variate."""
        self._correction = [c - mine for c, mine in zip(common, own, strict=True)]

    @torch.no_grad()
    def correct(self, weights: Sequence[Tensor], rate: float) -> None:
        """Correct the step of this size that the weights have just made."""
        for weight, correction in zip(weights, self._correction, strict=True):
            weight.sub_(correction, alpha=rate)

    @torch.no_grad()
    def after(
        self, arrived: Sequence[Tensor], left: Sequence[Tensor], rates: float
    ) -> list[Tensor]:
        """The new c_i, from the final weights of a visit whose step sizes sum to `rates`."""
        return [
            (before - weight) / rates - correction
            for before, weight, correction in zip(arrived, left, self._correction, strict=True)
        ]


def mean_variate(
    models: Callable[[], Iterable[Companions]], shares: Sequence[float]
) -> list[Tensor]:
    """The c of merged models: the mean of their c_i, with the same weights; none if they have none.

    `models`: reads them, one after the other. A site that is left out of a round has no part in it,
    and none has more than in the merge of their weights.
    """
    norms = [_norm(one.variate) for one in models()]
    having = [number for number, norm in enumerate(norms) if norm is not None]
    if not having:
        return []
    factors = torch.zeros(len(norms), dtype=torch.float64)
    factors[having] = shortened(torch.tensor([norms[k] for k in having], dtype=torch.float64))
    weights = bounded_shares(shares) * (factors > 0.0)
    weights = factors * weights / weights.sum()
    summed: list[Tensor] = []
    for (variate, _), weight in zip(models(), weights.tolist(), strict=True):
        if variate:
            before = summed or [torch.zeros_like(tensor) for tensor in variate]
            summed = [a + weight * b for a, b in zip(before, variate, strict=True)]
    return summed


def _norm(variate: Sequence[Tensor]) -> float | None:
    squared = [float(tensor.double().square().sum()) for tensor in variate]
    return math.sqrt(sum(squared)) if squared else None
