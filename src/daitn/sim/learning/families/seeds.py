"""Two ranges of seeds that share no world: one for tuning, one for reporting."""

from __future__ import annotations

__all__ = ["DEVELOPMENT", "MOST_SEEDS", "VALIDATION", "is_validation"]

DEVELOPMENT, VALIDATION = 1_000, 1_000_000
"""First seed of each range."""
MOST_SEEDS = VALIDATION - DEVELOPMENT


def is_validation(seed: int) -> bool:
    """Whether a seed is for reporting."""
    return seed >= VALIDATION
