"""Outer steps: how a round's update moves the model.

The moments of an outer step belong to the aggregation and not to the model: they lie in a file of
their own, which no site that trains needs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Adam", "Momentum", "Outer", "Plain", "Yogi"]

Moments = dict[str, Tensor]


class Outer(Protocol):
    """Moves one tensor of the model."""

    moments: tuple[str, ...]
    """The names of the state that it keeps for each tensor, in float32."""

    def step(self, update: Tensor, moments: Moments) -> tuple[Tensor, Moments]:
        """The move for a reduced `update`, and the new moments; in the first round they are 0."""
        ...


class Plain:
    """The unchanged update, times a rate: FedAvg, for 1."""

    moments: tuple[str, ...] = ()

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def step(self, update: Tensor, moments: Moments) -> tuple[Tensor, Moments]:
        return update * self._rate, {}


class Momentum:
    """Nesterov's momentum on updates of many local steps: Douillard et al. 2023, "DiLoCo",
    arXiv:2311.08105."""

    moments: tuple[str, ...] = ("momentum",)

    def __init__(self, rate: float, momentum: float) -> None:
        self._rate = rate
        self._momentum = momentum

    def step(self, update: Tensor, moments: Moments) -> tuple[Tensor, Moments]:
        gathered = self._momentum * moments["momentum"] + update
        return self._rate * (self._momentum * gathered + update), {"momentum": gathered}


class _Adaptive:
    """Reddi et al. 2020, "Adaptive federated optimization", arXiv:2003.00295, algorithm 2."""

    moments: tuple[str, ...] = ("first", "second")

    def __init__(self, rate: float, first: float, second: float, least: float) -> None:
        """`least`: the article's tau, which is added to the square root."""
        self._rate = rate
        self._first = first
        self._second = second
        self._least = least

    def step(self, update: Tensor, moments: Moments) -> tuple[Tensor, Moments]:
        first = self._first * moments["first"] + (1 - self._first) * update
        second = self._next(moments["second"], update.square())
        return self._rate * first / (second.sqrt() + self._least), {
            "first": first,
            "second": second,
        }

    def _next(self, second: Tensor, squared: Tensor) -> Tensor:
        raise NotImplementedError


class Adam(_Adaptive):
    """FedAdam."""

    def _next(self, second: Tensor, squared: Tensor) -> Tensor:
        return self._second * second + (1 - self._second) * squared


class Yogi(_Adaptive):
    """FedYogi: the second moment moves by as much as the update says, rather than by a share of
    itself."""

    def _next(self, second: Tensor, squared: Tensor) -> Tensor:
        return second - (1 - self._second) * squared * torch.sign(second - squared)
