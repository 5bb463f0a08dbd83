"""Multi-Krum: Blanchard et al. 2017, "Machine learning with adversaries: Byzantine tolerant
gradient descent", NIPS."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ChoosesUpdates", "Krum", "nearest_first"]


class ChoosesUpdates:
    """Computes the distances between whole updates, then uses only some of the updates."""

    compares = True
    whole = False

    def __init__(self, tolerates: int) -> None:
        self._tolerates = tolerates
        self._kept: list[int] = []

    def prepare(self, squared_distances: Tensor | None) -> None:
        assert squared_distances is not None
        self._kept = self._chosen(squared_distances, list(range(len(squared_distances))))

    def _chosen(self, squared_distances: Tensor, everybody: list[int]) -> list[int]:
        raise NotImplementedError


class Krum(ChoosesUpdates):
    """The mean of the N - `tolerates` updates with the nearest neighbours."""

    def _chosen(self, squared_distances: Tensor, everybody: list[int]) -> list[int]:
        ordered = nearest_first(squared_distances, everybody, self._tolerates)
        return ordered[: len(ordered) - self._tolerates]

    def reduce(self, updates: Tensor, shares: Tensor) -> Tensor:
        return updates[self._kept].mean(dim=0)


def nearest_first(squared_distances: Tensor, among: list[int], tolerates: int) -> list[int]:
    """Some of the updates, by their squared distances to the nearest others among these: to all but
    `tolerates` + 2, and to at least one. The distance to all updates breaks ties."""
    apart = squared_distances[among][:, among].clone()
    apart.fill_diagonal_(torch.inf)
    nearest = max(1, len(among) - tolerates - 2)
    scores = apart.sort(dim=1).values[:, :nearest].sum(dim=1).tolist()
    to_all = squared_distances.sum(dim=1).tolist()
    keys = {update: (score, to_all[update]) for update, score in zip(among, scores, strict=True)}
    return sorted(among, key=keys.__getitem__)
