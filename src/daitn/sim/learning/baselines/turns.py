"""Baseline that visits the least visited site next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from daitn.control.route.question import RouteQuestion
from daitn.topology.snapshot import DataOption

__all__ = ["least_visited"]


def least_visited(question: RouteQuestion, options: Sequence[DataOption]) -> tuple[DataOption, ...]:
    """Options that this job visited least often: a round ends when all were visited."""
    visits = Counter(visit.option_id for visit in question.history)
    least = min(visits[option.id] for option in options)
    return tuple(option for option in options if visits[option.id] == least)
