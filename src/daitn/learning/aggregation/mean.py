"""The mean, weighted by examples: McMahan et al. 2017, "Communication-efficient learning of deep
networks from decentralized data" (FedAvg), arXiv:1602.05629."""

from __future__ import annotations

import torch
from torch import Tensor

from daitn.learning.aggregation.each import EachByItself

__all__ = ["Mean"]


class Mean(EachByItself):
    """Every update counts by its share. One wrong update can move it anywhere."""

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        mean: Tensor = torch.tensordot(shares, updates, dims=1)
        return mean
