"""Which options are worth searching over, when there are many.

Greedy choice by expected gain per second, as for maximising a submodular function under a
knapsack (Leskovec et al., "Cost-effective outbreak detection in networks", KDD 2007): each round
takes the option that, were it absorbed completely, adds the most per effort to what those already
taken cover, of what the objectives still miss. Options that the model has visited stay in, since
what was learned there can fade.
"""

from __future__ import annotations

import numpy as np

from daitn.control.route.costs import example_s
from daitn.control.route.knowledge import Floats, prior, taught
from daitn.control.route.question import RouteQuestion

__all__ = ["SHORTLIST", "shortlist"]

SHORTLIST = 24
"""Options that a search considers besides those visited already."""
_HELD_WEIGHT = 0.1
"""What coverage of an objective that already holds counts, beside one that does not."""


def shortlist(question: RouteQuestion) -> tuple[int, ...]:
    """Positions in the topology's options, ascending."""
    options = question.topology.options
    if len(options) <= SHORTLIST:
        return tuple(range(len(options)))
    made = {visit.option_id for visit in question.history}
    made |= {visit.option_id for start in question.checkpoints for visit in start.visits}
    visited = {k for k, option in enumerate(options) if option.id in made}
    return tuple(sorted(visited | set(_greedy(question))))


def _greedy(question: RouteQuestion) -> list[int]:
    options = question.topology.options
    objectives = question.intent.objective_names()
    offered = prior(question.topology, objectives, only=range(len(options)))
    teaches = taught(offered, np.zeros((1, len(options), len(objectives))))[:, 0]
    targets = np.array([objective.at_least for objective in question.intent.objectives])
    weighted = offered.shares * (1.0 - offered.chance)[:, None]
    seconds = offered.tau * example_s(question.flops_per_example, question.history, options)
    seconds += question.verify_s + 1e-9
    available = np.array([option.site not in question.excluded for option in options])
    missed: Floats = np.ones_like(weighted)
    taken: list[int] = []
    while len(taken) < SHORTLIST and available.any():
        value = 1.0 - (missed * weighted).sum(axis=1)
        wanted = np.where(value < targets, 1.0, _HELD_WEIGHT)
        gain = (teaches * (missed * weighted)[None]).sum(axis=2) @ wanted
        rate = np.where(available, gain / seconds, -1.0)
        best = int(rate.argmax())
        taken.append(best)
        available[best] = False
        missed = missed * (1.0 - teaches[best])
    return taken
