"""Recorded worlds replay what was recorded, and are near it elsewhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from benchmarks.worlds import files
from benchmarks.worlds.beyond import trainer

from daitn.objects.identifiers import SiteId
from daitn.sim.learning.calibration import calibrated
from daitn.sim.learning.episode import run
from daitn.sim.learning.families.recorded import recorded_family, splits_for, stressed_family
from daitn.sim.learning.families.seeds import DEVELOPMENT, VALIDATION
from daitn.sim.learning.measuring import exact
from daitn.sim.learning.recordings import Recording, TrainedSplit
from daitn.sim.learning.replay import Replay, replay
from daitn.topology.arrays import Floats
from tests.sim.learning.scripted import Scripted

FAMILY = "wine"


@cache
def recording() -> Recording:
    return files.load(FAMILY)


@cache
def first() -> tuple[TrainedSplit, Replay]:
    trained = splits_for(recording(), validation=False)[0].asking("expert")
    return trained, replay(trained)


def followed(learner: Replay, route: tuple[tuple[int, int], ...], seed: int | None) -> Floats:
    models = learner.fresh(1)
    rng = None if seed is None else np.random.default_rng(seed)
    for site, examples in route:
        models = learner.trained(
            models, np.array([site]), np.array([float(examples)]), np.zeros(1), rng
        )
    return models


def test_recorded_routes_are_replayed_as_they_were() -> None:
    trained, learner = first()
    for route, node in trained.nodes.items():
        models = followed(learner, route, seed=7)
        values = learner.values(models)
        told = exact(learner.tests, values)[0]
        for number, test in enumerate(learner.tests):
            score = node.measured[test.objective]
            # recordings are rounded to four digits
            assert told[number] == pytest.approx(score.value, abs=1e-4)
            for place, label in enumerate(test.labels):
                if label in score.by_label:
                    assert values[0, number, place] == score.by_label[label]


def test_an_episode_measures_what_was_recorded() -> None:
    world = recorded_family(recording())(DEVELOPMENT + 3)
    learner = world.learner
    assert isinstance(learner, Replay)
    trained = next(t for t in recording().splits if t.split.split == world.split).asking("expert")
    route = max(trained.nodes, key=len)
    names = [(SiteId(world.sites[site].name), examples) for site, examples in route]
    episode = run(world, Scripted(names))
    for made, (_, node) in zip(
        episode.route,
        sorted((r, trained.nodes[route[: r + 1]]) for r in range(len(route))),
        strict=False,
    ):
        for objective, value in made.values.items():
            assert value == pytest.approx(node.measured[objective].value, abs=1e-4)


def test_off_the_recorded_tree_the_same_seed_gives_the_same_model() -> None:
    _, learner = first()
    route = ((0, 37), (1, 41), (0, 29))
    one, other, third = (followed(learner, route, seed) for seed in (1, 1, 2))
    assert (one == other).all()
    assert (one != third).any()
    assert one[0, 0] == -1.0
    values = learner.values(one)
    assert ((values >= -1e-9) & (values <= 1.0 + 1e-9)).all()


def test_beyond_the_recording_models_are_really_trained() -> None:
    trained, _ = first()
    training = trainer(FAMILY, trained.split.split)
    assert training is not None
    learner = replay(trained, trainer=training[0])
    route = ((0, 37), (1, 41), (0, 29))
    one, other = (followed(learner, route, seed) for seed in (1, 2))
    assert (one == other).all()
    assert one[0, 0] >= 0.0
    fresh = exact(learner.tests, learner.values(learner.fresh(1)))[0]
    much = followed(learner, tuple((k, 90) for k in range(len(trained.split.sites))) * 4, seed=1)
    assert exact(learner.tests, learner.values(much))[0].mean() > fresh.mean() + 0.2


def test_the_surrogate_knows_routes_that_it_never_saw() -> None:
    found = calibrated(replace(recording(), splits=recording().splits[:1]))
    assert found.routes.rmse < 0.5 * found.routes.still_rmse
    assert abs(found.routes.bias) < 0.08
    assert found.visits.rmse < found.visits.still_rmse


def test_tuning_and_reporting_see_different_splits() -> None:
    tuned, reported = (
        {trained.split.split for trained in splits_for(recording(), validation)}
        for validation in (False, True)
    )
    assert tuned
    assert reported
    assert not tuned & reported
    make = recorded_family(recording())
    assert make(DEVELOPMENT).split in tuned
    assert make(VALIDATION).split in reported


def test_recorded_truth_stands_in_networks_that_stress() -> None:
    make = stressed_family([recording()])
    worlds = [make(DEVELOPMENT + k) for k in range(12)]
    assert any(site.away for world in worlds for site in world.sites)
    assert any(site.hangs for world in worlds for site in world.sites)
    assert any(world.intent.budget.cost_usd for world in worlds)
    assert any(len({site.node.jurisdiction for site in world.sites}) > 1 for world in worlds)
    assert max(world.needs.size_bytes for world in worlds) > 3e7
    assert {world.split for world in worlds} <= {
        trained.split.split for trained in splits_for(recording(), validation=False)
    }
