"""Bulyan: El Mhamdi, Guerraoui and Rouault 2018, "The hidden vulnerability of distributed learning
in Byzantium", arXiv:1802.07927."""

from __future__ import annotations

from torch import Tensor

from daitn.learning.aggregation.krum import ChoosesUpdates, nearest_first

__all__ = ["Bulyan"]


class Bulyan(ChoosesUpdates):
    """Chooses N - 2 `tolerates` updates by Krum, one after the other, and averages in each
    coordinate those nearest to their median, so that a lie in a single coordinate is detected
    too."""

    def _chosen(self, squared_distances: Tensor, everybody: list[int]) -> list[int]:
        left, chosen = everybody, list[int]()
        while len(chosen) < len(everybody) - 2 * self._tolerates:
            best, *left = nearest_first(squared_distances, left, self._tolerates)
            chosen.append(best)
        return chosen

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        chosen = updates[self._kept].sort(dim=0).values
        count = max(1, len(chosen) - 2 * self._tolerates)
        median = (chosen[(len(chosen) - 1) // 2] + chosen[len(chosen) // 2]) / 2
        nearest = (chosen - median).abs().argsort(dim=0, stable=True)[:count]
        return chosen.gather(0, nearest).mean(dim=0)
