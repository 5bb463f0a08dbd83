"""Each family does the stress that it is named for."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.noiseless import Noiseless
from daitn.sim.learning.power_law import PowerLaw
from daitn.sim.learning.topologies import Topologies
from daitn.sim.learning.world import BEGIN_S, GroundSite, LearningWorld
from daitn.topology.arrays import Floats

SEEDS = range(4)


@cache
def world_of(family: str, seed: int) -> LearningWorld:
    return FAMILIES[family](seed)


def worlds(family: str) -> list[LearningWorld]:
    return [world_of(family, seed) for seed in SEEDS]


def truth(world: LearningWorld) -> PowerLaw:
    assert isinstance(world.learner, PowerLaw)
    return world.learner


def said(site: GroundSite) -> int:
    return site.node.datasets[0].samples


def told_topic(site: GroundSite) -> str:
    return site.node.datasets[0].topics[0]


def after(world: LearningWorld, *visits: tuple[int, float]) -> Floats:
    """Values of all objectives after visits, without luck."""
    ground = Noiseless(world, budgets=False)
    now = ground.start()
    for site, examples in visits:
        now = ground.visit(now, np.array([site]), np.array([examples]))
    return np.asarray(ground.values(now)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_makes_one_world(family: str) -> None:
    one, other, third = world_of(family, 2), FAMILIES[family](2), world_of(family, 3)
    assert (one.intent, one.sites, one.reference) == (other.intent, other.sites, other.reference)
    assert one.intent != third.intent


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "out of reach"])
def test_targets_are_within_reach_of_honest_sites(family: str) -> None:
    for world in worlds(family):
        ground = Noiseless(world)
        now = ground.start()
        for step in world.reference:
            assert world.sites[step.site].name in world.honest
            now = ground.visit(now, np.array([step.site]), np.array([float(step.examples)]))
        assert now.alive[0], "within the budget and the rules"
        assert (ground.values(now)[0] >= ground.targets).all()
        assert world.reachable == {test.objective for test in world.tests}


def test_sizes_go_from_three_sites_to_a_thousand() -> None:
    assert {len(world.sites) for world in worlds("tiny")} == {3}
    sizes = [len(world.sites) for world in worlds("large")]
    assert min(sizes) >= 100
    assert max(sizes) <= 1000


def test_learning_speeds_differ_by_an_order_of_magnitude() -> None:
    scales = [float(np.median(truth(FAMILIES["plain"](seed)).scale)) for seed in range(16)]
    assert max(scales) / min(scales) > 10.0


def test_slow_links_take_as_long_as_training() -> None:
    for world in worlds("slow links"):
        transfers_s = [world.transfer_s(a.name, b.name) for a, b in pairwise(world.sites)]
        epochs_s = [said(site) * site.example_s for site in world.sites]
        assert np.median(transfers_s) > np.median(epochs_s)


def test_prices_are_asked_and_money_is_short() -> None:
    for world in worlds("prices"):
        prices = [site.node.datasets[0].price_usd_per_1k for site in world.sites]
        assert max(prices) > 0.0
        everything_usd = sum(
            said(site) * price / 1000.0 for site, price in zip(world.sites, prices, strict=True)
        )
        assert world.intent.budget.cost_usd is not None
        assert world.intent.budget.cost_usd < 3.0 * everything_usd


def test_a_deadline_is_short() -> None:
    for world in worlds("deadline"):
        ground = Noiseless(world)
        now = ground.start()
        for step in world.reference:
            now = ground.visit(now, np.array([step.site]), np.array([float(step.examples)]))
        assert world.intent.budget.duration_s is not None
        assert world.intent.budget.duration_s <= max(20.0, 1.51 * now.seconds[0])


def test_some_data_makes_models_that_may_not_go_everywhere() -> None:
    for world in worlds("jurisdictions"):
        assert any("*" not in site.node.datasets[0].policy.release_to for site in world.sites)
        assert len({site.node.jurisdiction for site in world.sites}) > 1


def test_sites_leave_and_some_come_back() -> None:
    away = [site.away for world in worlds("leaving") for site in world.sites if site.away]
    assert any(np.isinf(end) for spans in away for _, end in spans)
    assert any(np.isfinite(end) for spans in away for _, end in spans)
    world = next(world for world in worlds("leaving") if any(site.away for site in world.sites))
    site = next(site for site in world.sites if site.away)
    begin, end = site.away[0]
    topologies = Topologies(world)
    there = [
        site.name in {option.site for option in topologies.at(BEGIN_S + at_s).options}
        for at_s in (begin - 1e-3, begin + 1e-3, *([end + 1e-3] if np.isfinite(end) else []))
    ]
    assert there in ([True, False], [True, False, True])


def test_data_grows_in_descriptors_and_in_truth() -> None:
    world = next(w for w in worlds("growing") if any(site.revisions for site in w.sites))
    number, site = next((k, site) for k, site in enumerate(world.sites) if site.revisions)
    at_s, node = site.revisions[-1]
    assert node.datasets[0].samples > said(site)
    shown = Topologies(world).at(BEGIN_S + at_s).options
    assert next(o for o in shown if o.site == site.name).dataset == node.datasets[0]
    learner = truth(world)
    early, late = (
        learner.trained(learner.fresh(1), np.array([number]), np.array([1e5]), np.array([t]), None)
        for t in (0.0, at_s)
    )
    assert (learner.values(late) >= learner.values(early)).all()
    assert learner.values(late).sum() > learner.values(early).sum()


def test_sites_hang() -> None:
    assert all(any(site.hangs for site in world.sites) for world in worlds("hanging"))


def test_topics_are_wrong() -> None:
    for world in worlds("wrong topics"):
        liars = [k for k, site in enumerate(world.sites) if site.name not in world.honest]
        assert liars
        topics = {
            told_topic(world.sites[k]): truth(world).topic[k]
            for k in range(len(world.sites))
            if k not in liars
        }
        for k in liars:
            if told_topic(world.sites[k]) in topics:
                assert truth(world).topic[k] != topics[told_topic(world.sites[k])]


def test_counts_are_inflated() -> None:
    for world in worlds("inflated"):
        for k, site in enumerate(world.sites):
            told_over_true = said(site) / truth(world).records[k]
            assert (told_over_true > 2.0) == (site.name not in world.honest)


def test_a_poisoned_site_harms() -> None:
    for world in worlds("poisoned"):
        bad = next(k for k, site in enumerate(world.sites) if site.name not in world.honest)
        assert truth(world).worth[bad] < 0.0
        before = [(step.site, float(step.examples)) for step in world.reference]
        assert after(world, *before, (bad, 3000.0)).sum() < after(world, *before).sum()


def test_copies_teach_no_more_than_their_original() -> None:
    for world in worlds("duplicates"):
        pools = truth(world).pool_of
        pool = int(np.bincount(pools).argmax())
        one, other = np.flatnonzero(pools == pool)[:2]
        assert said(world.sites[one]) == said(world.sites[other])
        twice = after(world, (int(one), 400.0), (int(one), 400.0))
        assert after(world, (int(one), 400.0), (int(other), 400.0)) == pytest.approx(twice)


def test_of_single_classes_only_short_turns_work() -> None:
    for world in worlds("single class"):
        labels = [site.node.datasets[0].labels for site in world.sites]
        assert all(len(of) == 1 for of in labels)
        assert len({label for of in labels for label in of}) == len(world.tests[0].labels)
        classes = len(world.tests[0].labels)
        short = [(k, 60.0) for _ in range(12) for k in range(classes)]
        long = [(k, 3000.0) for k in range(classes)]
        assert after(world, *short)[0] > after(world, *long)[0] + 0.1


def test_objectives_conflict() -> None:
    for world in worlds("conflicting"):
        learner = truth(world)
        assert len(world.tests) >= 2
        fighting = learner.transfer.min(axis=1) < 0.0
        assert fighting.any()


def test_one_target_is_out_of_reach() -> None:
    for world in worlds("out of reach"):
        assert len(world.reachable) == len(world.tests) - 1
        assert world.reference == ()
