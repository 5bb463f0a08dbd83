"""The coordinate-wise median: Yin et al. 2018, "Byzantine-robust distributed learning",
arXiv:1803.01498."""

from __future__ import annotations

from torch import Tensor

from daitn.learning.aggregation.each import EachByItself

__all__ = ["Median"]


class Median(EachByItself):
    """Robust while fewer than half of the sites lie. Shares do not count: a site states its own."""

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        ordered = updates.sort(dim=0).values
        middle = len(ordered) // 2
        if len(ordered) % 2:
            return ordered[middle]
        return (ordered[middle - 1] + ordered[middle]) / 2
