"""An episode is the same each time, and adds up."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from daitn.control.route.question import RouteQuestion
from daitn.objects.intents import Budget
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines import obvious_policies
from daitn.sim.learning.episode import Episode, EpisodeEnd, run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.noiseless import Noiseless
from daitn.sim.learning.policy import RoutePolicy, VisitChosen
from daitn.sim.learning.work import GIVEN_UP_LEAST_S, INITIALISE_S
from daitn.sim.learning.world import DATASET, GroundSite, LearningWorld, WorldStep
from tests.sim.learning.scripted import Scripted


def plain(seed: int = 1, **budget: float) -> LearningWorld:
    """A plain world whose targets nobody reaches at once."""
    world = FAMILIES["plain"](seed)
    objectives = tuple(
        msgspec.structs.replace(objective, at_least=1.0) for objective in world.intent.objectives
    )
    limits = Budget(**({"duration_s": 1e6} | budget))  # type: ignore[arg-type]
    intent = msgspec.structs.replace(world.intent, objectives=objectives, budget=limits)
    return replace(world, intent=intent)


def with_site(world: LearningWorld, number: int, **changes: object) -> LearningWorld:
    sites = list(world.sites)
    sites[number] = replace(sites[number], **changes)  # type: ignore[arg-type]
    return replace(world, sites=tuple(sites))


def priced(site: GroundSite, usd_per_1k: float) -> GroundSite:
    dataset = msgspec.structs.replace(site.node.datasets[0], price_usd_per_1k=usd_per_1k)
    return replace(site, node=msgspec.structs.replace(site.node, datasets=(dataset,)))


def measuring_s(world: LearningWorld, at: int) -> float:
    unit = world.verifiers[0].name
    fetch_s = world.transfer_s(world.sites[at].name, unit)
    return max(fetch_s + world.verify_s(unit, k) for k in range(len(world.tests)))


@pytest.mark.parametrize("family", ["plain", "leaving", "jurisdictions"])
@pytest.mark.parametrize("policy", obvious_policies(), ids=lambda policy: policy.name)
def test_the_same_seed_gives_the_same_episode(family: str, policy: RoutePolicy) -> None:
    first, second = (run(FAMILIES[family](5), policy) for _ in range(2))
    assert first == second


def test_seeds_differ() -> None:
    policy = obvious_policies()[0]
    ends = {run(FAMILIES["plain"](seed), policy).seconds for seed in range(5)}
    assert len(ends) == 5


def test_seconds_examples_and_usd_add_up() -> None:
    world = plain()
    world = replace(
        world, sites=(priced(world.sites[0], 2.0), priced(world.sites[1], 0.5), *world.sites[2:])
    )
    one, other = world.sites[0], world.sites[1]
    unit = world.verifiers[0].name

    episode = run(world, Scripted([(one.name, 300), (other.name, 700)]))

    fetch_s = min(world.transfer_s(one.name, other.name), world.transfer_s(unit, other.name))
    expected_s = (
        one.overhead_s
        + INITIALISE_S
        + measuring_s(world, 0)
        + one.overhead_s
        + 300 * one.example_s
        + measuring_s(world, 0)
        + fetch_s
        + other.overhead_s
        + 700 * other.example_s
        + measuring_s(world, 1)
    )
    assert episode.seconds == pytest.approx(expected_s)
    assert episode.examples == 1000
    assert episode.usd == pytest.approx(0.3 * 2.0 + 0.7 * 0.5)
    assert (episode.visits, episode.reached, episode.why) == (2, False, EpisodeEnd.GAVE_UP)


def test_questions_carry_what_real_jobs_measure() -> None:
    world = plain()
    policy = Scripted([(world.sites[0].name, 300), (world.sites[1].name, 200)])
    run(world, policy)

    fresh, untrained, once, twice = policy.questions
    assert fresh.checkpoints[0].model is None
    assert untrained.checkpoints[0].visits == ()
    assert set(untrained.checkpoints[0].values) == {t.objective for t in world.tests}
    made = once.history[0]
    assert made.examples == 300
    assert made.seconds == pytest.approx(300 * world.sites[0].example_s)
    assert made.overhead_s == pytest.approx(world.sites[0].overhead_s)
    assert made.verify_s == pytest.approx(measuring_s(world, 0))
    assert made.after == once.checkpoints[0].values
    assert all(error >= 0 for error in made.standard_error.values())
    for test in world.tests:
        told = {label for label, n in zip(test.labels, test.items, strict=True) if n >= 10}
        assert set(made.by_label.get(test.objective, {})) == told
    assert [visit.option_id for visit in twice.history] == [
        f"{world.sites[0].name}/pairs",
        f"{world.sites[1].name}/pairs",
    ]
    assert len(policy.jobs) == 1


@pytest.mark.parametrize("family", ["plain", "slow links", "jurisdictions", "prices"])
def test_the_noiseless_world_keeps_the_same_accounts(family: str) -> None:
    world = FAMILIES[family](3)
    ground = Noiseless(world)
    now = ground.start()
    for step in world.reference:
        now = ground.visit(now, np.array([step.site]), np.array([float(step.examples)]))
    names = [(world.sites[step.site].name, step.examples) for step in world.reference]
    hard = tuple(
        msgspec.structs.replace(objective, at_least=1.0) for objective in world.intent.objectives
    )
    world = replace(world, intent=msgspec.structs.replace(world.intent, objectives=hard))
    episode = run(world, Scripted(names))
    assert now.alive[0]
    assert episode.visits == len(world.reference)
    assert episode.seconds == pytest.approx(now.seconds[0])
    assert episode.usd == pytest.approx(now.usd[0])
    assert episode.examples == now.examples[0]


def test_time_ends_an_episode() -> None:
    world = plain(duration_s=25.0)
    site = world.sites[0]
    episode = run(world, Scripted([(site.name, 10_000_000)]))
    assert (episode.reached, episode.seconds, episode.why) == (False, 25.0, EpisodeEnd.TIME)


@pytest.mark.parametrize(
    ("budget", "why"),
    [({"examples": 500}, EpisodeEnd.EXAMPLES), ({"cost_usd": 0.2}, EpisodeEnd.USD)],
)
def test_what_is_beyond_the_budget_is_not_done(budget: dict[str, float], why: str) -> None:
    world = plain(1, **budget)
    world = replace(world, sites=(priced(world.sites[0], 1.0), *world.sites[1:]))
    site = world.sites[0].name
    episode = run(world, Scripted([(site, 100), (site, 600)]))
    assert (episode.examples, episode.why, episode.reached) == (100, why, False)


def test_release_rules_refuse_a_visit() -> None:
    world = FAMILIES["jurisdictions"](2)
    places = {site.name: site.node.jurisdiction for site in world.sites}
    strict = next(
        site
        for site in world.sites
        if "*" not in site.node.datasets[0].policy.release_to
        and world.verifiers[0].node.jurisdiction in site.node.datasets[0].policy.release_to
    )
    allowed = strict.node.datasets[0].policy.release_to
    forbidden = next(site for site in world.sites if places[site.name] not in allowed)
    policy = Scripted([(strict.name, 50), (forbidden.name, 50)])
    episode = run(world, policy)
    assert [visit.site for visit in episode.route] == [strict.name]
    assert forbidden.name in policy.questions[-1].excluded


def test_a_site_that_leaves_ends_the_visit() -> None:
    world = plain()
    gone = with_site(world, 0, away=((30.0, 1e9),))
    site = world.sites[0]
    policy = Scripted([(world.sites[1].name, 10), (site.name, 10_000_000)])
    episode = run(gone, policy)
    assert episode.failed_visits >= 1
    assert all(visit.site != site.name for visit in episode.route)
    assert all(option.site != site.name for option in policy.questions[-1].topology.options)


def test_a_site_that_hangs_is_given_up_in_the_end() -> None:
    world = with_site(plain(), 0, hangs=True)
    policy = Scripted([(world.sites[0].name, 10)] * 2)
    episode = run(world, policy)
    assert episode.visits == 0
    assert episode.seconds > GIVEN_UP_LEAST_S


def test_a_reference_is_a_list_of_steps() -> None:
    assert all(isinstance(step, WorldStep) for step in FAMILIES["plain"](0).reference)
    assert isinstance(run(plain(), Scripted([])), Episode)


def test_a_job_without_a_route_waits_for_sites_that_are_away() -> None:
    world = with_site(plain(), 0, away=((0.0, 400.0),))
    site = world.sites[0].name

    class Waiting(Scripted):
        def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
            self.questions.append(question)
            there = any(option.site == site for option in question.topology.options)
            if not there or question.history:
                return None
            return VisitChosen(question.checkpoints[0].model, site, DATASET, 100)

    policy = Waiting([])
    episode = run(world, policy)
    assert [visit.site for visit in episode.route] == [site]
    assert episode.seconds > 400.0
    assert len(policy.questions) > 3
