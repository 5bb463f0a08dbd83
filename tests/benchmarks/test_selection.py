"""Worlds of many sites are trained and merged for real, and the table counts what was led."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.worlds import many
from benchmarks.worlds.many import MANY, TrainedInMemory, dealt

from benchmarks import selection
from daitn.objects.merging import RULES, Algorithm
from daitn.topology.arrays import Floats

SEED = 9
"""Of digits at eight alike sites."""


def few() -> TrainedInMemory:
    learner, _, _ = dealt(SEED, np.random.default_rng(SEED))
    return learner


def visited(learner: TrainedInMemory, start: Floats, merged: bool) -> Floats:
    """The models that the sites make of one, each with an epoch."""
    sites = np.arange(len(learner.sites))
    examples = np.array([float(site.examples(1.0)) for site in learner.sites])
    rows = np.repeat(start, len(sites), axis=0)
    return learner.trained(rows, sites, examples, np.zeros(len(sites)), None, merged)


def accuracy(learner: TrainedInMemory, models: Floats) -> float:
    return float(learner.values(models)[0, 0].mean())


@pytest.mark.parametrize("algorithm", [Algorithm.FEDAVG, Algorithm.DILOCO, Algorithm.TIES])
def test_rounds_teach_what_their_rules_merge(algorithm: Algorithm) -> None:
    learner = few()
    model, moments = learner.fresh(1), None
    for _ in range(3):
        made = visited(learner, model, merged=True)
        row, moments = learner.merged(model[0], made, np.ones(len(made)), RULES[algorithm], moments)
        model = row[None]
    assert accuracy(learner, learner.fresh(1)) < 0.3
    assert accuracy(learner, model) > 0.7


def test_a_visit_of_a_route_is_held_back_and_one_of_a_round_is_not() -> None:
    learner = few()

    def moved(merged: bool) -> float:
        made = visited(learner, learner.fresh(1), merged)
        first, fresh = learner.models[int(made[0, 0])], learner.models[0]
        return float(sum(((a - b) ** 2).sum() for a, b in zip(first, fresh, strict=True)))

    assert moved(merged=False) < moved(merged=True)


def test_other_luck_is_another_model_of_the_same_data() -> None:
    learner = few()
    one, two = (
        of.models[int(visited(of, of.fresh(1), merged=False)[0, 0])]
        for of in (learner, learner.again())
    )
    assert all(a.shape == b.shape for a, b in zip(one, two, strict=True))
    assert any((a != b).any() for a, b in zip(one, two, strict=True))


def test_one_class_each_is_one_class_each() -> None:
    labels = np.repeat(np.arange(10), 30)
    sites = many._owned(labels, 20, 0.0, np.random.default_rng(0))
    assert len(sites) == 20
    assert all(len(set(labels[site])) == 1 for site in sites)
    assert sorted(np.concatenate(sites)) == list(range(300))


def test_a_table_counts_who_reached_and_who_was_close() -> None:
    led = [
        selection.Led(
            family=MANY, seed=1, sites=5, budget_s=100.0, chosen=(),
            seconds={"sequential": 10.0, "diloco": 11.0, selection.AGAIN: 13.0},
        ),
        selection.Led(
            family=MANY, seed=2, sites=5, budget_s=100.0, chosen=(), seconds={"diloco": 20.0}
        ),
        selection.Led(
            family=MANY, seed=3, sites=5, budget_s=100.0, chosen=(), seconds={"adaptive": 20.0}
        ),
    ]  # fmt: skip
    head, _, _, *rows = selection.table(led, ("sequential", "diloco", selection.AGAIN))
    assert head == "3 worlds; an algorithm by name reached in 2"
    assert rows == [
        "| sequential | 1 of 2 | 50% | 2.24 | 1 |",
        "| diloco | 2 of 2 | 100% | 1.05 | 1 |",
        "| the best again | 1 of 2 | 0% | 2.55 | 0 |",
    ]
