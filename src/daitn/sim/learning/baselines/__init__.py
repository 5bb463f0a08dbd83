"""Obvious policies: what one would try without a planner. A planner has to beat them."""

from __future__ import annotations

from daitn.sim.learning.baselines.anywhere import Anywhere
from daitn.sim.learning.baselines.best_fit import BestFit
from daitn.sim.learning.baselines.by_size import BySize
from daitn.sim.learning.baselines.greedy import Greedy
from daitn.sim.learning.baselines.nearest import Nearest
from daitn.sim.learning.baselines.ring import Ring
from daitn.sim.learning.policy import RoutePolicy

__all__ = ["obvious_policies"]


def obvious_policies() -> tuple[RoutePolicy, ...]:
    """All of them."""
    return (
        BySize(1),
        BySize(2),
        Ring(),
        Ring(500),
        Anywhere(),
        Nearest(),
        BestFit(),
        Greedy(),
    )
