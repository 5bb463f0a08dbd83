"""Rounds of one algorithm, for owners who name it."""

from __future__ import annotations

from dataclasses import dataclass, field

from daitn.control.route.engine import Mtrce
from daitn.control.route.question import RouteQuestion
from daitn.control.route.rounds import next_round
from daitn.objects.decisions import Round
from daitn.objects.merging import RULES, Algorithm
from daitn.objects.randomness import Rng
from daitn.sim.learning.planned import PlannedPolicy
from daitn.sim.learning.policy import VisitChosen

__all__ = ["InRounds"]


@dataclass(frozen=True)
class InRounds:
    """The control centre's rounds of `algorithm`. Its route engine chooses where a fresh model is
    made, and the first visit of one that cannot be merged before."""

    algorithm: Algorithm
    engine: Mtrce = field(default_factory=lambda: Mtrce(looks=0))

    @property
    def name(self) -> str:
        return str(self.algorithm)

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | Round | None:
        if not question.merges:
            return PlannedPolicy(self.engine).next_visit(question, rng)
        return next_round(question, self.algorithm, RULES[self.algorithm]).round
