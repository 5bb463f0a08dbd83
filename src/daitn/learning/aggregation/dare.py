"""DARE: Yu et al. 2023, "Language models are super Mario", arXiv:2311.03099, with the library
`peft`."""

from __future__ import annotations

import torch
from peft.utils import merge_utils
from torch import Tensor

from daitn.learning.aggregation.each import EachByItself

__all__ = ["Dare"]


class Dare(EachByItself):
    """Drops all but a random `density` of each update, scales the rest up, and averages."""

    def __init__(self, density: float, seed: int) -> None:
        self._density = density
        self._seed = seed

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self._seed)
            self._seed += 1
            merged: Tensor = merge_utils.dare_linear(list(updates), shares, self._density)
        return merged
