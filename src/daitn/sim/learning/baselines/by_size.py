"""Sites by size, largest first; then from the top again.

What an engineer without a theory does: the most data first. (In the comparison that preceded this
one, `findings/decisions.md`, it beat every planner.)
"""

from __future__ import annotations

from dataclasses import dataclass

from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.admissible import admissible, one_epoch, taken
from daitn.sim.learning.baselines.turns import least_visited
from daitn.sim.learning.policy import VisitChosen

__all__ = ["BySize"]


@dataclass(frozen=True)
class BySize:
    """Each visit lasts this many epochs of the records the site advertises."""

    epochs: int = 1

    @property
    def name(self) -> str:
        return f"by size, {self.epochs} epoch" + ("s" if self.epochs > 1 else "")

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        options = admissible(question)
        if not options:
            return None
        option = min(least_visited(question, options), key=lambda o: (-o.dataset.samples, o.id))
        return taken(question, option, self.epochs * one_epoch(option))
