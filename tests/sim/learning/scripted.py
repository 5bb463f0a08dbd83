"""A policy that follows a list, for tests of the ground itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from daitn.control.jobs.job import Job
from daitn.control.route.question import RouteQuestion
from daitn.objects.identifiers import SiteId
from daitn.objects.randomness import Rng
from daitn.sim.learning.policy import VisitChosen
from daitn.sim.learning.world import DATASET


@dataclass
class Scripted:
    """Visits (site, examples), one after the other, from the latest model; then it gives up."""

    visits: Sequence[tuple[SiteId, int]]
    name: str = "scripted"
    questions: list[RouteQuestion] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        self.questions.append(question)
        fresh = question.checkpoints[0].model is None
        done = sum(asked.checkpoints[0].model is not None for asked in self.questions) - 1
        place = 0 if fresh else done
        if place >= len(self.visits):
            return None
        site, examples = self.visits[place]
        return VisitChosen(question.checkpoints[0].model, site, DATASET, examples)

    def finished(self, job: Job, question: RouteQuestion) -> None:
        self.jobs.append(job)
