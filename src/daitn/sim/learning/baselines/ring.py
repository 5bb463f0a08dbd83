"""A ring over all sites by name, with the same work at each: cyclic weight transfer.

Chang et al., "Distributed deep learning networks among institutions for medical imaging", JAMIA
25(8), 2018: the model cycles through the institutions in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.admissible import admissible, one_epoch, taken
from daitn.sim.learning.baselines.turns import least_visited
from daitn.sim.learning.policy import VisitChosen

__all__ = ["Ring"]


@dataclass(frozen=True)
class Ring:
    """`examples` at each site; `None` means one epoch."""

    examples: int | None = None

    @property
    def name(self) -> str:
        return "ring, 1 epoch" if self.examples is None else f"ring, {self.examples} examples"

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        options = admissible(question)
        if not options:
            return None
        option = min(least_visited(question, options), key=lambda o: o.id)
        amount = one_epoch(option) if self.examples is None else self.examples
        return taken(question, option, amount)
