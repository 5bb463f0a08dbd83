"""This project's own route engine as a policy among others."""

from __future__ import annotations

from dataclasses import dataclass, field

from daitn.control.route.engine import Mtrce
from daitn.control.route.question import RouteQuestion
from daitn.policy.pipeline import Rng
from daitn.sim.learning.policy import VisitChosen

__all__ = ["Planned"]


@dataclass(frozen=True)
class Planned:
    """MTRCE; the first visit of its route is carried out, as the control centre does."""

    engine: Mtrce = field(default_factory=Mtrce)
    name: str = "mtrce"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        route, _ = self.engine.plan(question, rng)
        if route is None:
            return None
        visit = route.visits[0]
        return VisitChosen(route.start, visit.site, visit.dataset, visit.examples)
