"""The coordinate-wise trimmed mean: Yin et al. 2018, "Byzantine-robust distributed learning",
arXiv:1803.01498."""

from __future__ import annotations

from torch import Tensor

from daitn.learning.aggregation.each import EachByItself

__all__ = ["TrimmedMean"]


class TrimmedMean(EachByItself):
    """Leaves out the `tolerates` smallest and largest values of each coordinate. Shares do not
    count."""

    def __init__(self, tolerates: int) -> None:
        self._tolerates = tolerates

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        ordered = updates.sort(dim=0).values
        return ordered[self._tolerates : len(ordered) - self._tolerates].mean(dim=0)
