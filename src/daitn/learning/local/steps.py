"""An algorithm's changes to the steps of a visit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from daitn.learning.local.companions import Companions
from daitn.learning.local.consolidation import importance_after
from daitn.learning.local.variates import Variates
from daitn.objects.merging import LocalRule

__all__ = ["Steps"]


class Steps:
    """Those of one visit, from the arriving weights on."""

    def __init__(
        self,
        rule: LocalRule,
        weights: Sequence[Tensor],
        companions: Companions,
        own: Sequence[Tensor],
        usual_mu: float,
    ) -> None:
        """`companions`: those of the arriving model; `own`: the site's last variate; `usual_mu`:
        the recipe's pull towards the arriving weights, unless the rule has one."""
        self._mu = usual_mu if rule.mu is None else rule.mu
        self._rule = rule
        self._weights = weights
        self.arrived = [weight.detach().clone() for weight in weights]
        variate, importance, own = (
            [each.to(weight.device) for each, weight in zip(group, weights, strict=bool(group))]
            for group in (*companions, own)
        )
        self.rates = 0.0
        """Sum of the step sizes so far."""
        self._variates: Variates | None = None
        if rule.variates:
            common = variate or [torch.zeros_like(weight) for weight in self.arrived]
            self._variates = Variates(common, own or common)
        self._importance = importance

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradients of the pulls towards the arriving weights to the weights' own."""
        by_importance = self._rule.consolidation if self._importance else 0.0
        if not (self._mu or by_importance):
            return
        for number, (weight, before) in enumerate(zip(self._weights, self.arrived, strict=True)):
            if weight.grad is None:
                continue
            gap = weight.to(weight.grad.dtype) - before
            weight.grad.add_(gap, alpha=self._mu)
            if by_importance:
                weight.grad.addcmul_(gap, self._importance[number], value=by_importance)

    def stepped(self, rate: float) -> None:
        """The optimiser has made a step of this size."""
        self.rates += rate
        if self._variates is not None:
            self._variates.correct(self._weights, rate)

    @torch.no_grad()
    def after(self, optimiser: torch.optim.Optimizer, seed: int) -> Companions:
        """Companions that travel on with the final weights. `optimiser`: Adam, or one with its
        state; `seed`: the site's secret."""
        variate, importance = Companions()
        if self._variates is not None and self.rates:
            variate = self._variates.after(self.arrived, self._weights, self.rates)
        if self._rule.consolidation:
            squares = [
                optimiser.state[weight].get("exp_avg_sq", torch.zeros_like(weight))
                for weight in self._weights
            ]
            importance = importance_after(self._importance, squares, seed)
        return Companions(variate, importance)
