"""Screens a round's updates for outliers before a mean, which a single one could move anywhere.

Norms are compared with the median norm (Sun et al. 2019, "Can you really backdoor federated
learning?", arXiv:1911.07963, clip by such a norm; here the update is held back, and its site
named), directions with the coordinate-wise median of all updates. Sites with unlike data point in
unlike directions, so what counts is how far one falls behind the others. One update is found at a
time: the worst one moves the medians by which others are judged. Bounds were set on digits over ten
sites, from even to nearly one class a site (`benchmarks/liars.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LEAST_SCREENED", "Likeness"]

LEAST_SCREENED = 4
"""Among fewer updates, no outlier can be identified."""
_LONGEST = 3.0
"""Multiple of the median norm. Honest sites' were at most 2, as long as none has more records."""
_BEHIND = 0.6
"""Maximum difference of a cosine below the median one."""
_BY_CHANCE = 4.0
"""Standard deviations of the cosine of unrelated updates, each 1 over the root of the number of
their weights: a model of few weights may point anywhere."""


@dataclass
class Likeness:
    """Similarity of the updates of N sites, gathered piece by piece."""

    squared: Tensor
    """(N,): squared norms."""
    along: Tensor
    """(N,): products with the coordinate-wise median."""
    median_squared: Tensor
    """(): the median's squared norm."""
    numbers: int = 0
    """Number of weights in an update."""

    @classmethod
    def empty(cls, updates: int) -> Likeness:
        zeros = torch.zeros(updates, dtype=torch.float64)
        return cls(zeros, zeros.clone(), torch.zeros((), dtype=torch.float64))

    def add(self, updates: Tensor) -> None:
        """Process a piece of the updates, (N, ...) in float32."""
        flat = updates.reshape(len(updates), -1)
        self.numbers += flat.shape[1]
        middle = flat.quantile(0.5, dim=0).double()
        self.squared.add_(flat.double().square().sum(dim=1))
        self.along.add_(flat.double() @ middle)
        self.median_squared.add_(middle.square().sum())

    def outlier(self, shares: Sequence[float]) -> tuple[int, str] | None:
        """The update that is least like the others, and why it is excluded; none if all are similar
        enough. `shares` (N,): examples of each, since longer training may go further."""
        norms = self.squared.sqrt()
        examples = torch.tensor(shares, dtype=torch.float64)
        longer = (examples / examples.quantile(0.5)).clamp_min(1.0)
        usual_norm = norms.quantile(0.5).clamp_min(1e-30)
        length = norms / (usual_norm * longer)
        worst = int(length.argmax())
        if float(length[worst]) > _LONGEST:
            times = float(norms[worst] / usual_norm)
            return worst, f"its update is {times:.1f} times as long as the median one"
        cosines = self.along / (norms * self.median_squared.sqrt()).clamp_min(1e-30)
        worst, usual = int(cosines.argmin()), float(cosines.quantile(0.5))
        found = float(cosines[worst])
        by_chance = _BY_CHANCE / max(1, self.numbers) ** 0.5
        if found < min(-by_chance, usual - _BEHIND):
            return worst, (
                f"its update points away from the others' median (cosine {found:.2f}, "
                f"the median one {usual:.2f})"
            )
        return None
