"""The synthetic truth learns, forgets, repeats itself and starves as its docstring says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from daitn.sim.learning.learner import Examined
from daitn.sim.learning.measuring import exact, measured
from daitn.sim.learning.power_law import Growth, PowerLaw
from daitn.topology.arrays import Floats


def learner(**changes: Any) -> PowerLaw:
    """Two data sets on two topics, two labels, one objective on the first topic."""
    plain = PowerLaw(
        pool_of=np.array([0, 1]),
        records=np.array([1000.0, 1000.0]),
        shares=np.array([[0.5, 0.5], [0.5, 0.5]]),
        topic=np.array([0, 1]),
        worth=np.array([1.0, 1.0]),
        transfer=np.array([[1.0], [0.0]]),
        alike=np.eye(2),
        chance=np.array([0.25]),
        ceiling=np.array([[0.95, 0.95]]),
        scale=np.array([[100.0, 100.0]]),
        alpha=1.0,
        beta=1.0,
        spill=0.0,
        passes=5.0,
        warm_up=0.0,
        forget=0.3,
        forget_examples=500.0,
        recent_examples=300.0,
        starve=0.0,
        luck=0.1,
    )
    return replace(plain, **changes)


def after(truth: PowerLaw, *visits: tuple[int, float], at_s: float = 0.0) -> Floats:
    models = truth.fresh(1)
    for dataset, examples in visits:
        models = truth.trained(
            models, np.array([dataset]), np.array([examples]), np.array([at_s]), None
        )
    return np.asarray(truth.values(models)[0, 0])


def test_a_fresh_model_guesses() -> None:
    assert after(learner()) == pytest.approx([0.25, 0.25])


def test_the_curve_is_a_power_law() -> None:
    # half of 400 examples are of each label: 0.25 + 0.7 (1 - 1 / (1 + 200 / 100))
    assert after(learner(), (0, 400.0)) == pytest.approx([0.25 + 0.7 * 2 / 3] * 2)


def test_each_visit_loses_its_warm_up() -> None:
    truth = learner(warm_up=100.0)
    assert after(truth, (0, 400.0))[0] > after(truth, *[(0, 50.0)] * 8)[0]
    assert after(learner(), (0, 400.0)) == pytest.approx(after(learner(), *[(0, 50.0)] * 8))


def test_another_topic_undoes_and_a_like_one_does_not() -> None:
    before = after(learner(), (0, 400.0))
    assert after(learner(), (0, 400.0), (1, 2000.0))[0] < before[0]
    alike = learner(alike=np.ones((2, 2)))
    assert after(alike, (0, 400.0), (1, 2000.0)) == pytest.approx(before)


def test_records_seen_again_teach_less() -> None:
    small = learner(records=np.array([100.0, 1000.0]))
    assert after(small, (0, 1000.0))[0] < after(learner(), (0, 1000.0))[0]
    assert after(small, (0, 1e9)) == pytest.approx(after(small, (0, 1e8)))


def test_growth_lets_the_same_visit_teach_more() -> None:
    small = learner(
        records=np.array([100.0, 1000.0]), growths=(Growth(at_s=10.0, pool=0, records=1000.0),)
    )
    assert after(small, (0, 1000.0), at_s=11.0)[0] > after(small, (0, 1000.0), at_s=9.0)[0]


def test_a_label_starves_that_was_not_seen_lately() -> None:
    one_class = np.array([[1.0, 0.0], [0.0, 1.0]])
    truth = learner(starve=1.0, shares=one_class, transfer=np.ones((2, 1)), forget=0.0)
    long = after(truth, (0, 1000.0), (1, 1000.0))
    short = after(truth, *[(k % 2, 100.0) for k in range(20)])
    assert long[0] < 0.3
    assert short.min() > 0.7


def test_wrong_labels_harm() -> None:
    truth = learner(worth=np.array([1.0, -1.0]), transfer=np.ones((2, 1)), forget=0.0)
    assert after(truth, (0, 800.0), (1, 400.0))[0] < after(truth, (0, 800.0))[0]


def test_luck_moves_around_the_expected() -> None:
    truth = learner()
    models = truth.fresh(2000)
    rng = np.random.default_rng(0)
    count = len(models)
    models = truth.trained(
        models, np.zeros(count, dtype=np.int64), np.full(count, 300.0), np.zeros(count), rng
    )
    values = truth.values(models)[:, 0, 0]
    assert values.mean() == pytest.approx(after(truth, (0, 300.0))[0], abs=0.01)
    assert values.std() > 0.005


def test_measuring_is_binomial_and_tells_labels_with_enough_items() -> None:
    test = Examined("broad", "t", 0.25, ("a", "b"), (200, 9))
    rng = np.random.default_rng(0)
    found = [measured(test, np.array([0.8, 0.5]), rng) for _ in range(500)]
    values = np.array([one.value for one in found])
    true = exact((test,), np.array([[[0.8, 0.5]]]))[0, 0]
    assert values.mean() == pytest.approx(true, abs=0.01)
    assert values.std() == pytest.approx(found[0].standard_error, rel=0.2)
    assert set(found[0].by_label) == {"a"}
