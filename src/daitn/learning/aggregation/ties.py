"""TIES: Yadav et al. 2023, "TIES-merging: resolving interference when merging models",
arXiv:2306.01708, with the library `peft`."""

from __future__ import annotations

from peft.utils import merge_utils
from torch import Tensor

from daitn.learning.aggregation.each import EachByItself

__all__ = ["Ties"]


class Ties(EachByItself):
    """Keeps the `density` largest part of each update, elects a sign for each coordinate, and
    averages the values with that sign."""

    whole = True

    def __init__(self, density: float) -> None:
        self._density = density

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        # With equal shares, the library's weights are 1: it divides by the number kept.
        weights = shares * len(shares)
        density = max(self._density, 1.0 / max(1, updates[0].numel()))  # One value at least.
        merged: Tensor = merge_utils.ties(list(updates), weights, density)
        return merged
