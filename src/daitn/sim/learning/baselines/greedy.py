"""The site that gained most per second at its last visit; each is tried once first.

A bandit that exploits at once: epsilon-first with one pull of each arm (Sutton and Barto,
"Reinforcement Learning", chapter 2), with the last gain as estimate because gains fall.
"""

from __future__ import annotations

from dataclasses import dataclass

from daitn.control.route.question import PastVisit, RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.admissible import admissible, one_epoch, taken
from daitn.sim.learning.policy import VisitChosen

__all__ = ["Greedy"]

_TRIAL_EXAMPLES = 500


@dataclass(frozen=True)
class Greedy:
    """Explores with short visits, then exploits the site with the best last gain per second.

    It tries sites with up to 500 examples, largest first, until one gains; then it spends one epoch
    each where the last gain per second was largest, and tries a new site whenever that gained
    nothing.
    """

    name: str = "greedy by gain"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        options = admissible(question)
        if not options:
            return None
        last = {visit.option_id: _rate(question, visit) for visit in question.history}
        known = [option for option in options if last.get(option.id, 0.0) > 0.0]
        new = [option for option in options if option.id not in last]
        gained = bool(question.history) and _rate(question, question.history[-1]) > 0.0
        if known and (gained or not new):
            option = max(known, key=lambda o: (last[o.id], o.id))
            return taken(question, option, one_epoch(option))
        if new:
            option = min(new, key=lambda o: (-o.dataset.samples, o.id))
            return taken(question, option, min(_TRIAL_EXAMPLES, one_epoch(option)))
        option = options[int(rng.random() * len(options))]
        return taken(question, option, one_epoch(option))


def _rate(question: RouteQuestion, visit: PastVisit) -> float:
    """Reduction of the shortfall per second of the visit."""
    closed = 0.0
    for objective in question.intent.objectives:
        target = objective.at_least
        before = max(0.0, target - visit.before.get(objective.name, 0.0))
        closed += before - max(0.0, target - visit.after.get(objective.name, 0.0))
    return closed / max(visit.seconds + visit.transfer_s + visit.verify_s, 1e-6)
