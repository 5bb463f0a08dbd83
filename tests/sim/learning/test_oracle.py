"""Looking back finds routes at least as good as the one that set the targets."""

from __future__ import annotations

import numpy as np
import pytest

from daitn.sim.learning.baselines import obvious_policies
from daitn.sim.learning.episode import run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.noiseless import Noiseless
from daitn.sim.learning.oracle import hindsight, searched
from daitn.sim.learning.world import LearningWorld


def reference_s(world: LearningWorld) -> float:
    ground = Noiseless(world)
    now = ground.start()
    for step in world.reference:
        now = ground.visit(now, np.array([step.site]), np.array([float(step.examples)]))
    return float(now.seconds[0])


@pytest.mark.parametrize("family", ["plain", "tiny", "slow links", "deadline", "hanging"])
def test_the_search_is_not_slower_than_the_reference(family: str) -> None:
    for seed in range(3):
        world = FAMILIES[family](seed)
        found = searched(world)
        assert found is not None
        assert found[0] <= 1.05 * reference_s(world)


def test_hindsight_takes_the_soonest_of_all() -> None:
    world = FAMILIES["plain"](4)
    episodes = tuple(run(world, policy) for policy in obvious_policies())
    best = hindsight(world, episodes)
    assert best is not None
    reached = [episode.seconds for episode in episodes if episode.reached]
    assert best.seconds <= min(reached)
    assert best.by == "search" or best.seconds == min(reached)


def test_there_is_nothing_to_look_back_on_where_nothing_reaches() -> None:
    assert hindsight(FAMILIES["out of reach"](1), ()) is None
