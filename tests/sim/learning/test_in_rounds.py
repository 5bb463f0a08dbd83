"""Rounds in simulated networks: how long they last, and what a merge leaves."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Budget
from daitn.objects.merging import CONSIDERED, RULES, Algorithm
from daitn.sim.learning.episode import run
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.in_rounds import InRounds
from daitn.sim.learning.merging import DRIFT, merged_rows
from daitn.sim.learning.world import LearningWorld


def one_round(family: str = "tiny", seed: int = 1) -> LearningWorld:
    """A world whose targets nobody reaches, with examples for one round of all records, or two in
    which slow sites train a part."""
    world = FAMILIES[family](seed)
    records = sum(site.node.datasets[0].samples for site in world.sites)
    objectives = tuple(
        msgspec.structs.replace(objective, at_least=1.0) for objective in world.intent.objectives
    )
    budget = Budget(duration_s=1e6, examples=records)
    intent = msgspec.structs.replace(world.intent, objectives=objectives, budget=budget)
    return replace(world, intent=intent)


def test_a_round_lasts_as_long_as_its_slowest_site_and_the_ways_of_the_models() -> None:
    world = one_round()
    policy = InRounds(Algorithm.FEDAVG)
    episode = run(world, policy)
    rounds = len(episode.steps)
    assert len(world.sites) <= episode.visits <= rounds * len(world.sites)
    assert set(episode.steps) == {"fedavg"}
    unit = world.verifiers[0].name
    measuring_s = [
        max(
            world.transfer_s(site.name, unit) + world.verify_s(unit, k)
            for k in range(len(world.tests))
        )
        for site in world.sites
    ]
    sites = len(world.sites)
    trained_s = max(
        site.overhead_s + site.node.datasets[0].samples * site.example_s for site in world.sites
    )
    ways_s = sites * max(
        world.transfer_s(one.name, other.name, sites)
        for one in world.sites
        for other in world.sites
    )
    made_s = max(site.overhead_s for site in world.sites) + max(measuring_s) + 1.0
    least_s = max(site.overhead_s for site in world.sites) + min(measuring_s)
    most_s = trained_s + 2 * ways_s + max(measuring_s) + made_s
    assert rounds * least_s < episode.seconds < made_s + rounds * most_s


@pytest.mark.parametrize("algorithm", CONSIDERED)
@pytest.mark.parametrize("family", ["tiny", "single class", "leaving", "hanging"])
def test_the_same_seed_gives_the_same_rounds(family: str, algorithm: Algorithm) -> None:
    first, second = (run(FAMILIES[family](3), InRounds(algorithm)) for _ in range(2))
    assert first == second


def test_a_plain_mean_of_alike_models_is_that_model_and_drift_takes_from_it() -> None:
    base, learnt = np.zeros(4), np.array([3.0, 1.0, 0.0, 2.0])
    models, shares = np.stack([learnt, learnt, learnt]), np.array([1.0, 5.0, 2.0])
    rule = RULES[Algorithm.FEDAVG]
    same, _ = merged_rows(base, models, shares, rule, None)
    assert same == pytest.approx(learnt)
    apart, _ = merged_rows(base, models, shares, rule, None, apart=1.0)
    assert apart == pytest.approx((1.0 - DRIFT) * learnt)


def test_momentum_goes_on() -> None:
    base, models = np.zeros(2), np.array([[4.0, 0.0], [0.0, 2.0]])
    shares = np.array([1.0, 1.0])
    once, moments = merged_rows(base, models, shares, RULES[Algorithm.DILOCO], None)
    twice, _ = merged_rows(base, models, shares, RULES[Algorithm.DILOCO], moments)
    assert (twice > once).all()


@pytest.mark.parametrize("sites", [2, 50])
def test_ties_of_sites_that_differ_do_not_add_up_all_that_they_learned(sites: int) -> None:
    base, models, shares = np.zeros(sites), np.eye(sites) * 4.0, np.ones(sites)
    mean, _ = merged_rows(base, models, shares, RULES[Algorithm.FEDAVG], None)
    ties, _ = merged_rows(base, models, shares, RULES[Algorithm.TIES], None)
    assert ties == pytest.approx(1.5 * mean), "as `benchmarks.algorithms` measured it"


def test_a_rule_that_depends_on_the_size_of_weights_is_not_guessed() -> None:
    with pytest.raises(InvalidInput, match="adam"):
        merged_rows(np.zeros(1), np.ones((2, 1)), np.ones(2), RULES[Algorithm.FEDADAM], None)
