"""Facilities that answer examinations better than others: a test after every pair of answers."""

from __future__ import annotations

import random

import pytest
from scipy.integrate import quad

from daitn.control.two_faced import ALARM, PAIRS, Paired, evidence


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (0, 3), (7, 2), (30, 12)])
def test_the_evidence_is_the_mean_over_coins_that_favour_the_round(better: int, worse: int) -> None:
    mean, _ = quad(lambda p: 2 * (2 * p) ** better * (2 * (1 - p)) ** worse, 0.5, 1.0)
    assert evidence(better, worse) == pytest.approx(mean, rel=1e-6)


def test_a_fair_coin_gathers_no_evidence_on_average() -> None:
    """The next mean of both outcomes is what there is or less: a supermartingale, by all states."""
    for better in range(25):
        for worse in range(25):
            following = (evidence(better + 1, worse) + evidence(better, worse + 1)) / 2
            assert following <= evidence(better, worse) * (1 + 1e-9)


def pairs(rng: random.Random, alone: float, in_round: float, count: int) -> Paired:
    found = Paired()
    for _ in range(count):
        found.took(rng.random() < alone, rng.random() < in_round)
        if found.marked:
            break
    return found


def test_who_treats_all_alike_is_hardly_ever_marked() -> None:
    rng = random.Random(1)
    marked = sum(pairs(rng, 0.7, 0.7, PAIRS - 1).marked for _ in range(500))
    assert marked <= 500 * ALARM + 2


def test_who_answers_rounds_better_is_found_and_what_it_answers_alone_is_told() -> None:
    rng = random.Random(2)
    found = [pairs(rng, 0.5, 0.9, PAIRS - 1) for _ in range(50)]
    assert sum(one.marked for one in found) >= 48
    told = [one.answered().value for one in found if one.marked]
    assert sum(told) / len(told) < 0.55


def test_a_facility_that_mends_its_ways_is_acquitted() -> None:
    rng = random.Random(3)
    found = pairs(rng, 0.4, 0.95, PAIRS - 1)
    assert found.marked
    for _ in range(PAIRS):
        right = rng.random() < 0.95
        found.took(right, right)
    assert not found.marked
    assert found.answered().items == 0
