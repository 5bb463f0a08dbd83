"""Reductions: combine several updates into one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Reduction"]


class Reduction(Protocol):
    """Reduces the updates of N sites to one, tensor by tensor."""

    def prepare(self, squared_distances: Tensor | None) -> None:
        """Called before the first tensor, with (N, N) squared distances between whole updates if
        `compares`."""
        ...

    @property
    def compares(self) -> bool:
        """Whether it uses distances between whole updates."""
        ...

    @property
    def whole(self) -> bool:
        """Whether it must see a tensor as a whole rather than in pieces."""
        ...

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        """One update of the (N, ...) `updates` in float32; `shares` (N,) are positive and sum to 1.

        It does not depend on the order of the updates.
        """
        ...
