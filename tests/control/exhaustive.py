"""All plans of a few visits: the oracle beside the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, product

from daitn.control.route.rollout import Plan, Stop, play
from daitn.control.route.task import RouteTask

__all__ = ["all_plans", "best_of_all"]

_CHUNK = 256
"""Plans that are played out at once."""


def all_plans(stops: Sequence[Stop], depth: int, starts: int = 1) -> Iterator[Plan]:
    """Every sequence of 1 to `depth` of these stops, from every checkpoint."""
    for start in range(starts):
        for length in range(1, depth + 1):
            for chosen in product(stops, repeat=length):
                yield Plan(start, chosen)


def best_of_all(task: RouteTask, stops: Sequence[Stop], depth: int) -> tuple[float, bool]:
    """The least effort of all plans, and whether any of them reaches under any draw."""
    plans = all_plans(stops, depth, len(task.starts))
    least, reached = float("inf"), False
    while chunk := tuple(islice(plans, _CHUNK)):
        outcome = play(task, chunk)
        least = min(least, float(outcome.effort.min()))
        reached = reached or bool((outcome.visits > 0).any())
    return least, reached
