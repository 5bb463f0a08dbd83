"""Policies are compared by hand-made episodes."""

from __future__ import annotations

import pytest

from daitn.sim.learning.comparison import Judged, compared
from daitn.sim.learning.episode import Episode


def episode(policy: str, reached: bool, seconds: float, examples: int) -> Episode:
    return Episode(
        policy=policy,
        family="f",
        seed=0,
        reached=reached,
        seconds=seconds,
        examples=examples,
        usd=0.0,
        visits=1,
        failed_visits=0,
        why="",
        route=(),
        decision_s=(0.1, 0.3),
    )


def judged(ours: Episode, other: Episode, third: Episode, best_s: float | None) -> Judged:
    return Judged(
        family="f",
        seed=0,
        budget_s=100.0,
        reachable=other.reached or third.reached,
        episodes={"ours": ours, "other": other, "third": third},
        oracle_s=best_s,
        oracle_examples=100.0,
    )


def test_ratios_and_shares() -> None:
    worlds = [
        judged(
            episode("ours", True, 10.0, 100),
            episode("other", True, 20.0, 400),
            episode("third", False, 50.0, 800),
            5.0,
        ),
        judged(
            episode("ours", False, 30.0, 100),
            episode("other", True, 25.0, 200),
            episode("third", True, 50.0, 800),
            20.0,
        ),
        judged(
            episode("ours", True, 40.0, 100),
            episode("other", False, 99.0, 1),
            episode("third", False, 99.0, 1),
            40.0,
        ),
    ]
    found = compared(worlds, "ours", ("other", "third"))
    assert (found.episodes, found.reachable, found.reached_besides) == (3, 2, 1)
    assert found.reached_share == 0.5
    assert found.reached_known == pytest.approx(2 / 3)
    # a miss counts the whole budget: 10 / 20 and 100 / 25
    assert found.against["other"] == pytest.approx((2.25, 2.0**0.5))
    # the second world's miss counts the most examples of anybody there
    assert found.best_obvious_examples == pytest.approx(((100 / 400) * (800 / 200)) ** 0.5)
    assert found.best_obvious_s == pytest.approx(2.0**0.5)
    assert (found.oracle_mean, found.oracle_worst) == pytest.approx((3.5, 5.0))
    assert found.decision_median_s == pytest.approx(0.2)
