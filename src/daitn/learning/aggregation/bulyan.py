"""Bulyan: El Mhamdi, Guerraoui and Rouault 2018, "The hidden vulnerability of distributed learning
in Byzantium", arXiv:1802.07927."""

from __future__ import annotations

from torch import Tensor

from daitn.learning.aggregation.krum import nearest_first

__all__ = ["Bulyan"]


class Bulyan:
    """Chooses N - 2 `tolerates` updates by Krum, one after the other, and averages in each
    coordinate those nearest to their median: a lie in one coordinate is seen, too."""

    compares = True
    whole = False

    def __init__(self, tolerates: int) -> None:
        self._tolerates = tolerates
        self._kept: list[int] = []

    def prepare(self, squared_distances: Tensor | None) -> None:
        assert squared_distances is not None
        left = list(range(len(squared_distances)))
        self._kept = []
        while len(self._kept) < len(squared_distances) - 2 * self._tolerates:
            best, *left = nearest_first(squared_distances, left, self._tolerates)
            self._kept.append(best)

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        chosen = updates[self._kept].sort(dim=0).values
        count = max(1, len(chosen) - 2 * self._tolerates)
        median = (chosen[(len(chosen) - 1) // 2] + chosen[len(chosen) // 2]) / 2
        nearest = (chosen - median).abs().argsort(dim=0, stable=True)[:count]
        return chosen.gather(0, nearest).mean(dim=0)
