"""Obvious policies do what they say, within budgets and rules."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from daitn.objects.access import allows
from daitn.objects.intents import Budget
from daitn.sim.learning.baselines import obvious_policies
from daitn.sim.learning.baselines.by_size import BySize
from daitn.sim.learning.baselines.nearest import Nearest
from daitn.sim.learning.baselines.ring import Ring
from daitn.sim.learning.episode import Episode, EpisodeEnd, run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.policy import RoutePolicy
from daitn.sim.learning.world import LearningWorld
from tests.control.route_world import general, intent, question, topology

ALL = pytest.mark.parametrize("policy", obvious_policies(), ids=lambda policy: policy.name)


def hard(world: LearningWorld, duration_s: float = 1e5) -> LearningWorld:
    """Targets that nobody reaches, so that a policy goes on and on."""
    objectives = tuple(
        msgspec.structs.replace(objective, at_least=1.0) for objective in world.intent.objectives
    )
    budget = Budget(duration_s=duration_s, examples=20_000)
    return replace(
        world, intent=msgspec.structs.replace(world.intent, objectives=objectives, budget=budget)
    )


def test_names_are_unique() -> None:
    names = [policy.name for policy in obvious_policies()]
    assert len(set(names)) == len(names)


@ALL
@pytest.mark.parametrize("family", ["prices", "deadline", "leaving", "hanging"])
def test_budgets_are_kept(policy: RoutePolicy, family: str) -> None:
    for seed in range(4):
        world = FAMILIES[family](seed)
        budget = world.intent.budget
        episode = run(world, policy)
        assert episode.seconds <= (budget.duration_s or 0.0) + 1e-6
        assert budget.cost_usd is None or episode.usd <= budget.cost_usd + 1e-9
        assert budget.examples is None or episode.examples <= budget.examples
        assert episode.why not in (EpisodeEnd.USD, EpisodeEnd.EXAMPLES, EpisodeEnd.STUCK)


@ALL
def test_release_rules_are_kept(policy: RoutePolicy) -> None:
    for seed in range(4):
        world = FAMILIES["jurisdictions"](seed)
        nodes = {site.name: site.node for site in world.sites}
        allowed: tuple[str, ...] = ("*",)
        for visit in run(world, policy).route:
            node = nodes[visit.site]
            assert allows(allowed, node.jurisdiction)
            release_to = node.datasets[0].policy.release_to
            if "*" in allowed:
                allowed = release_to
            elif "*" not in release_to:
                allowed = tuple(sorted(set(allowed) & set(release_to)))
            assert any(allows(allowed, unit.node.jurisdiction) for unit in world.verifiers)


def test_by_size_starts_with_the_largest_and_begins_again() -> None:
    world = hard(FAMILIES["plain"](2))
    sizes = {site.name: site.node.datasets[0].samples for site in world.sites}
    route = run(world, BySize(1)).route
    count = len(world.sites)
    first = [sizes[visit.site] for visit in route[:count]]
    assert first == sorted(sizes.values(), reverse=True)[: len(first)]
    assert [visit.examples for visit in route[:count]] == first
    assert route[count].site == route[0].site


def test_a_ring_goes_around_by_name() -> None:
    world = hard(FAMILIES["plain"](2))
    names = sorted(site.name for site in world.sites)
    episode: Episode = run(world, Ring(500))
    turns = [visit.site for visit in episode.route]
    assert turns[: 2 * len(names)] == (names * 2)[: len(turns)]
    assert {visit.examples for visit in episode.route[:-1]} == {500}


def test_nearest_takes_the_quick_ones_first() -> None:
    world = hard(FAMILIES["plain"](2))
    assert run(world, Nearest()).route[0].examples < run(world, BySize(1)).route[0].examples


def test_a_random_walk_goes_everywhere_in_the_end() -> None:
    world = hard(FAMILIES["tiny"](1))
    policy = next(p for p in obvious_policies() if p.name.startswith("random"))
    visits = Counter(visit.site for visit in run(world, policy).route)
    assert set(visits) == {site.name for site in world.sites}


def test_an_answer_depends_on_the_question_alone() -> None:
    options = [general("a", {"x": 10}), general("b", {"x": 20})]
    asked = question(intent(broad=0.9), topology(options))
    for policy in obvious_policies():
        answers = {policy.next_visit(asked, random.Random(3)) for _ in range(3)}
        assert len(answers) == 1
