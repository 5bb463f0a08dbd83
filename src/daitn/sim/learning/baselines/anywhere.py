"""A random site, one epoch: a random walk, as in gossip learning.

Ormandi, Hegedus and Jelasity, "Gossip learning with linear models on fully distributed data",
Concurrency and Computation 25(4), 2013: models walk from node to node at random.
"""

from __future__ import annotations

from dataclasses import dataclass

from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.admissible import admissible, one_epoch, taken
from daitn.sim.learning.policy import VisitChosen

__all__ = ["Anywhere"]


@dataclass(frozen=True)
class Anywhere:
    """Draws uniformly from the admissible sites."""

    name: str = "random, 1 epoch"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        options = admissible(question)
        if not options:
            return None
        option = options[int(rng.random() * len(options))]
        return taken(question, option, one_epoch(option))
