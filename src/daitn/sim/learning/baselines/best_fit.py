"""The site whose topic best fits the missed objectives: matching by descriptors alone.

Topic similarity is that of Wu and Palmer (1994), as everywhere in the topology; ties go to the
larger data set. One epoch each, round by round.
"""

from __future__ import annotations

from dataclasses import dataclass

from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.admissible import admissible, latest, one_epoch, taken
from daitn.sim.learning.baselines.turns import least_visited
from daitn.sim.learning.policy import VisitChosen
from daitn.topology.snapshot import DataOption

__all__ = ["BestFit"]


@dataclass(frozen=True)
class BestFit:
    """Fit and coverage of the missed objectives, weighted by how much each is missed."""

    name: str = "best fit first"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        options = admissible(question)
        if not options:
            return None
        option = min(
            least_visited(question, options),
            key=lambda o: (-_fit(question, o), -o.dataset.samples, o.id),
        )
        return taken(question, option, one_epoch(option))


def _fit(question: RouteQuestion, option: DataOption) -> float:
    values = latest(question).values
    total = 0.0
    for name, objective in zip(
        question.intent.objective_names(), question.intent.objectives, strict=True
    ):
        missing = max(0.0, objective.at_least - values.get(objective.name, 0.0))
        total += missing * option.fit[name] * option.coverage[name]
    return total
