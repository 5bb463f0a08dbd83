"""Bounds what a single model can do to a round's merge, and finds those that no site honestly made.

An update may be unlike all others because its site lies, or because nobody else has such data.
Weights do not tell which, so unlikeness alone holds no site back: a long update is shortened (Sun
et al. 2019, "Can you really backdoor federated learning?", arXiv:1911.07963), and none counts for
many more examples than a typical one. Held back, and its site named, is an update that no training
makes, or one that is unlike those of sites that publish about the same labels: norms are compared
with the median norm, directions with the coordinate-wise median. One is found at a time: the worst
one moves the medians by which others are judged. Bounds were set on digits over ten sites, from
even to nearly one class a site (`benchmarks/liars.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["LEAST_SCREENED", "Likeness", "bounded_shares", "shortened"]

LEAST_SCREENED = 4
"""Among fewer updates, no outlier can be identified."""
_LEAST_SHORTENED = 3
"""Among fewer, there is no usual norm."""
_LONGEST = 3.0
"""Multiple of the median norm. Honest sites' were at most 2, as long as none has more records."""
_MOST_SHARE = 3.0
"""Multiple of the lower median share that one has; its examples are what its site says."""
_IMPOSSIBLE = 5.0
"""Multiple of the median norm that no training reaches in one visit, unless it is shorter than all
weights together: newcomers' updates were up to 6 times as long as the median one, but a fifth of
their model. Lies of ten times an honest update were longer than both."""
_BEYOND = 1e12
"""Norm of no model that works: its square still fits into a 32-bit float."""
_BEHIND = 0.6
"""Maximum difference of a cosine below the median one."""
_BY_CHANCE = 4.0
"""Standard deviations of the cosine of unrelated updates, each 1 over the root of the number of
their weights: a model of few weights may point anywhere."""

Found = tuple[int, str]
"""Which update, and why it is held back."""


def bounded_shares(shares: Sequence[float]) -> Tensor:
    """(N,): these, but none more than so many times the lower median one."""
    stated = torch.tensor(shares, dtype=torch.float64)
    return stated.clamp_max(_MOST_SHARE * stated.median())


def shortened(norms: Tensor, groups: Tensor | None = None) -> Tensor:
    """(N,): the factor on each update that leaves none much longer than the median one. `groups`:
    norms of groups' means, with which a few updates beside them are compared."""
    compared = norms
    if len(norms) < _LEAST_SHORTENED:
        if groups is None or not len(groups):
            return torch.ones_like(norms)
        compared = groups
    return (_LONGEST * _usual(compared) / norms.clamp_min(1e-30)).clamp_max(1.0)


def _usual(norms: Tensor) -> Tensor:
    """(): the median norm of the updates that change anything."""
    changing = norms[norms > 0.0]
    return changing.quantile(0.5) if len(changing) else norms.new_tensor(1.0)


@dataclass
class Likeness:
    """Norms and similarity of the updates of N sites, gathered piece by piece."""

    alike: list[int]
    """Those whose sites publish about the same labels as most: these are compared."""
    squared: Tensor
    """(N,): squared norms."""
    along: Tensor
    """(N,): products with the coordinate-wise median of those that are alike."""
    median_squared: Tensor
    """(): the median's squared norm."""
    weights_squared: Tensor
    """(): that of the weights from which they were trained."""
    numbers: int = 0
    """Number of weights in an update."""

    @classmethod
    def empty(cls, updates: int, alike: Sequence[int], single: int) -> Likeness:
        """`alike`: those with about the same labels, which are compared if they are most of the
        `single` sites."""
        enough = len(alike) >= LEAST_SCREENED and 2 * len(alike) > single
        among = list(alike) if enough else []
        zeros = torch.zeros(updates, dtype=torch.float64)
        zero = torch.zeros((), dtype=torch.float64)
        return cls(among, zeros, zeros.clone(), zero, zero.clone())

    @property
    def norms(self) -> Tensor:
        return self.squared.sqrt()

    def add(self, updates: Tensor, start: Tensor) -> None:
        """Process a piece of the updates, (N, ...) in float32, and of what they started from."""
        flat = updates.reshape(len(updates), -1)
        self.numbers += flat.shape[1]
        self.squared.add_(flat.double().square().sum(dim=1))
        self.weights_squared.add_(start.double().square().sum())
        if self.alike:
            middle = flat[self.alike].quantile(0.5, dim=0).double()
            self.along.add_(flat.double() @ middle)
            self.median_squared.add_(middle.square().sum())

    def of(self, some: Sequence[int]) -> Likeness:
        """That of some of the updates, which are counted anew."""
        rows = list(some)
        alike = [rows.index(k) for k in self.alike if k in rows]
        return replace(self, alike=alike, squared=self.squared[rows], along=self.along[rows])

    def beyond(self) -> Found | None:
        """An update with which no model works: it would leave the range of numbers."""
        worst = int(self.norms.argmax())
        if float(self.norms[worst]) <= _BEYOND:
            return None
        return worst, "its weights are beyond those of any model that works"

    def impossible(self, shares: Sequence[float]) -> Found | None:
        """An update that no training makes, whatever its data."""
        norms = self.norms
        length = norms / (_usual(norms) * _longer(shares))
        worst = int(length.argmax())
        longer, whole = float(length[worst]), float(self.weights_squared.sqrt())
        # From zeros, as linear models may begin, any length is possible.
        if len(norms) < _LEAST_SHORTENED or longer <= _IMPOSSIBLE or not 0.0 < whole < norms[worst]:
            return None
        return worst, (
            f"its update is {longer:.1f} times as long as the median one, and longer than all "
            "weights of the model"
        )

    def outlier(self, shares: Sequence[float]) -> Found | None:
        """The update that is least like those of sites with about the same labels; none if all are
        similar enough. `shares` (N,): examples of each, since longer training may go further."""
        if not self.alike:
            return None
        norms = self.norms[self.alike]
        usual_norm = _usual(norms)
        length = norms / (usual_norm * _longer(shares)[self.alike])
        worst = int(length.argmax())
        if float(length[worst]) > _LONGEST:
            times = float(norms[worst] / usual_norm)
            return self.alike[worst], (
                f"its update is {times:.1f} times as long as the median one of like data"
            )
        along = self.along[self.alike]
        cosines = along / (norms * self.median_squared.sqrt()).clamp_min(1e-30)
        worst, usual = int(cosines.argmin()), float(cosines.quantile(0.5))
        found = float(cosines[worst])
        by_chance = _BY_CHANCE / max(1, self.numbers) ** 0.5
        if found < min(-by_chance, usual - _BEHIND):
            return self.alike[worst], (
                f"its update points away from the median of others with like data (cosine "
                f"{found:.2f}, the median one {usual:.2f})"
            )
        return None


def _longer(shares: Sequence[float]) -> Tensor:
    """(N,): how much longer each may be for its examples, as far as these are believed."""
    believed = bounded_shares(shares)
    return (believed / believed.median()).clamp_min(1.0)
