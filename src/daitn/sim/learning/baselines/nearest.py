"""The site where an epoch ends soonest: the nearest-neighbour heuristic of route planning.

Rosenkrantz, Stearns and Lewis, "An analysis of several heuristics for the traveling salesman
problem", SIAM J. Computing 6(3), 1977: go to the nearest unvisited place.
"""

from __future__ import annotations

from dataclasses import dataclass

from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.admissible import admissible, one_epoch, taken, visit_s
from daitn.sim.learning.baselines.turns import least_visited
from daitn.sim.learning.policy import VisitChosen

__all__ = ["Nearest"]


@dataclass(frozen=True)
class Nearest:
    """Least transfer and training time first, one epoch each, round by round."""

    name: str = "nearest first"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        options = admissible(question)
        if not options:
            return None
        option = min(
            least_visited(question, options),
            key=lambda o: (visit_s(question, o, one_epoch(o)), o.id),
        )
        return taken(question, option, one_epoch(option))
