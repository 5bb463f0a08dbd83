"""Randomness as an argument: the core draws only from what it is given, so decisions replay."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Rng"]


class Rng(Protocol):
    """The part of `random.Random` that decisions draw from."""

    def random(self) -> float: ...
