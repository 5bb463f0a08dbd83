"""Reductions that process one coordinate at a time."""

from __future__ import annotations

from torch import Tensor

__all__ = ["EachByItself"]


class EachByItself:
    """Needs no view of whole updates."""

    compares = False
    whole = False

    def prepare(self, squared_distances: Tensor | None) -> None:
        """Does nothing."""
