"""The control centre's own choice before each step: a visit, or a round of some algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from daitn.control.route.engine import Mtrce
from daitn.control.route.question import RouteQuestion
from daitn.control.route.selection import next_step
from daitn.objects.decisions import Round
from daitn.objects.merging import Algorithm
from daitn.objects.randomness import Rng
from daitn.sim.learning.policy import VisitChosen

__all__ = ["SelectedPolicy"]


@dataclass(frozen=True)
class SelectedPolicy:
    """The policy of `algorithm: adaptive`."""

    engine: Mtrce = field(default_factory=Mtrce)
    name: str = "adaptive"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | Round | None:
        training = msgspec.structs.replace(question.intent.training, algorithm=Algorithm.ADAPTIVE)
        intent = msgspec.structs.replace(question.intent, training=training)
        step = next_step(replace(question, intent=intent), self.engine)
        if step.route is None:
            return step.round
        visit = step.route.visits[0]
        return VisitChosen(step.route.start, visit.site, visit.dataset, visit.examples)
