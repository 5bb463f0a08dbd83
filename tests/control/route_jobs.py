"""Jobs in the simulated worlds of `daitn.sim.learning`, whose truth no planner here believes in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import msgspec

from daitn.control.jobs.job import Job
from daitn.control.route.question import RouteQuestion
from daitn.objects.decisions import Round
from daitn.objects.intents import Budget
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.ring import Ring
from daitn.sim.learning.episode import Episode, run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.planned import PlannedPolicy
from daitn.sim.learning.policy import RoutePolicy, VisitChosen
from daitn.sim.learning.world import LearningWorld

__all__ = ["Watched", "led", "led_in", "seen_by_a_ring", "single_class_pairs"]

_PAIRS = 6
_PLENTY = 10.0


@dataclass
class Watched:
    """A policy, and all that it was asked and answered."""

    policy: RoutePolicy = field(default_factory=PlannedPolicy)
    asked: list[tuple[RouteQuestion, VisitChosen | Round | None]] = field(default_factory=list)
    last: RouteQuestion | None = None
    """What would be asked when the job is over."""

    @property
    def name(self) -> str:
        return self.policy.name

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | Round | None:
        chosen = self.policy.next_visit(question, rng)
        self.asked.append((question, chosen))
        return chosen

    def finished(self, job: Job, question: RouteQuestion) -> None:
        self.last = question


def led(world: LearningWorld) -> tuple[Episode, Watched]:
    """The planner leads a job through a world."""
    watched = Watched()
    return run(world, watched), watched


@cache
def led_in(family: str, seed: int) -> tuple[LearningWorld, Episode, Watched]:
    """The planner leads a job through one world of a family; led once for all tests."""
    world = FAMILIES[family](seed)
    return world, *led(world)


def seen_by_a_ring(family: str, seed: int) -> tuple[LearningWorld, RouteQuestion]:
    """A world, and what is known of it after a ring over all its sites."""
    world, watched = FAMILIES[family](seed), Watched(Ring())
    run(world, watched)
    assert watched.last is not None
    return world, watched.last


@cache
def single_class_pairs() -> tuple[tuple[LearningWorld, Episode, Watched], ...]:
    """The first worlds of the family `single class` that have two sites, each with a class of its
    own, with time enough for whoever takes turns of any length."""
    found = []
    for seed in range(1_000, 1_100):
        world = FAMILIES["single class"](seed)
        if len(world.sites) == 2 and len(world.tests[0].labels) == 2:
            budget = Budget(duration_s=_PLENTY * (world.intent.budget.duration_s or 0.0))
            unhurried = msgspec.structs.replace(world.intent, budget=budget)
            world = replace(world, intent=unhurried)
            found.append((world, *led(world)))
        if len(found) == _PAIRS:
            break
    return tuple(found)
