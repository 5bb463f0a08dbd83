"""Randomness as an argument: the core has no other source, so decisions can be replayed."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Rng"]


class Rng(Protocol):
    """The part of `random.Random` that decisions draw from."""

    def random(self) -> float: ...
