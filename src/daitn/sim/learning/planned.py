"""This project's route engine as a policy among others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.route.engine import Mtrce
from daitn.control.route.experience import PastJob, lessons, pooled
from daitn.control.route.priors import UNTAUGHT
from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.policy import VisitChosen

__all__ = ["PlannedPolicy", "PlannedWithExperience"]


@dataclass(frozen=True)
class PlannedPolicy:
    """MTRCE; carries out the first visit of its route, as the control centre does."""

    engine: Mtrce = field(default_factory=Mtrce)
    name: str = "mtrce"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        route, _ = self.engine.plan(question)
        if route is None:
            return None
        visit = route.visits[0]
        return VisitChosen(route.start, visit.site, visit.dataset, visit.examples)


@dataclass
class PlannedWithExperience:
    """Likewise with the lessons of earlier jobs, as stored by a control centre.

    Only what holds for the recipe anywhere: a site of one world is not the site of the same name in
    another, as it would be in a network.
    """

    past: list[PastJob] = field(default_factory=list)
    engine: Mtrce = field(default_factory=Mtrce)
    parameters: int = 1
    name: str = "experienced"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        taught = pooled(self.past, question.intent.model.recipe, self.parameters)
        return PlannedPolicy(self.engine).next_visit(replace(question, experience=taught), rng)

    def finished(self, job: Job, question: RouteQuestion) -> None:
        """Store the job's lessons."""
        learned = lessons(question, self.parameters)
        if learned is not None:
            general = {key: one for key, one in learned.lessons.items() if key in UNTAUGHT}
            self.past.append(msgspec.structs.replace(learned, lessons=general))
