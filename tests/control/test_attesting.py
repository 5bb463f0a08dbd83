from __future__ import annotations

import math
import random
from itertools import accumulate

import pytest

from daitn.control.attesting import FALSE_ALARM, Examination, Tally, fallen, risen
from daitn.objects.identifiers import Digest, SiteId

WEIGHTS = Digest("a" * 64)
ROUND = 24


def answers(rng: random.Random, accuracy: float, count: int = ROUND) -> list[bool]:
    return [rng.random() < accuracy for _ in range(count)]


def settled(rng: random.Random, accuracy: float, rounds: int = 10) -> Examination:
    known = Examination(WEIGHTS)
    for _ in range(rounds):
        known.took(WEIGHTS, answers(rng, accuracy), 240)
    return known


def told(known: Examination) -> tuple[float, int, bool]:
    finding = known.finding(SiteId("mpvu"), SiteId("mdf"), "doctor", "medicine", 1.0)
    return finding.value, finding.items, finding.degraded


def shares(accuracy: float, items: int) -> list[float]:
    """Chance of each number of right answers."""
    return [
        math.comb(items, k) * accuracy**k * (1 - accuracy) ** (items - k) for k in range(items + 1)
    ]


def alarm(accuracy: float, before: int, now: int) -> float:
    """Exact chance that a look alarms where nothing changed: the more were right before, the more
    may be right now and still alarm."""
    upto = [0.0, *accumulate(shares(accuracy, now))]
    chance, alarming = 0.0, 0
    for right, share in enumerate(shares(accuracy, before)):
        while alarming <= now and fallen(Tally(right, before), Tally(alarming, now)):
            alarming += 1
        chance += share * upto[alarming]
    return chance


@pytest.mark.parametrize("accuracy", [0.3, 0.5, 0.7, 0.9, 0.95])
def test_all_looks_of_a_round_together_keep_the_promise(accuracy: float) -> None:
    """At the round, at the two and four latest, and at the whole window after four of them."""
    looks = ((240, 24), (192, 48), (144, 96), (960, 240))
    assert sum(alarm(accuracy, *look) for look in looks) <= FALSE_ALARM


@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.95])
def test_a_deployment_that_stays_as_it_is_is_left_alone(accuracy: float) -> None:
    rng, alarms, rounds = random.Random(1), 0, 4000
    known = Examination(WEIGHTS)
    for _ in range(rounds):
        known.took(WEIGHTS, answers(rng, accuracy), 240)
        alarms += known.before is not None
        known.before = None
    # More come by chance in fewer than one of a hundred runs that keep the promise.
    assert alarms <= 2


@pytest.mark.parametrize(("to", "rounds"), [(0.25, 1), (0.5, 2), (0.6, 4)])
def test_a_fall_is_seen_soon(to: float, rounds: int) -> None:
    seen = 0
    for seed in range(100):
        rng = random.Random(seed)
        known = settled(rng, 0.92)
        for _ in range(rounds):
            known.took(WEIGHTS, answers(rng, to), 240)
        seen += known.before is not None
    assert seen >= 90


def test_a_small_fall_does_not_pass_through_the_window_unseen() -> None:
    seen = 0
    for seed in range(50):
        rng = random.Random(seed)
        known = settled(rng, 0.92, rounds=60)
        for _ in range(20):
            known.took(WEIGHTS, answers(rng, 0.82), 240)
            if known.before is not None:
                seen += 1
                break
    assert seen >= 40


def test_after_a_fall_only_what_came_since_counts() -> None:
    rng = random.Random(3)
    known = settled(rng, 0.95)
    known.took(WEIGHTS, answers(rng, 0.2), 240)
    value, items, degraded = told(known)
    assert degraded
    assert items == ROUND
    assert value < 0.5
    before = known.finding(SiteId("mpvu"), SiteId("mdf"), "doctor", "medicine", 1.0).before
    assert before == pytest.approx(0.95, abs=0.05)


def test_who_is_well_again_is_let_in_and_who_is_not_is_not() -> None:
    rng = random.Random(4)
    known = settled(rng, 0.95)
    for _ in range(5):
        known.took(WEIGHTS, answers(rng, 0.3), 240)
        assert told(known)[2]
    known.took(WEIGHTS, [True] * ROUND, 240)
    assert told(known)[2], "one good round may be luck"
    known.took(WEIGHTS, [True] * ROUND, 240)
    assert told(known) == (1.0, 2 * ROUND, False)


def test_other_weights_start_anew() -> None:
    rng = random.Random(5)
    known = settled(rng, 0.95)
    known.took(Digest("b" * 64), answers(rng, 0.3), 240)
    assert told(known)[1:] == (ROUND, False)


def test_the_window_forgets_the_oldest() -> None:
    rng = random.Random(6)
    known = settled(rng, 0.9, rounds=60)
    assert 240 <= known.known().items < 240 + ROUND


def test_a_bad_start_is_no_fall_and_few_items_prove_nothing() -> None:
    assert not fallen(Tally(4, 4), Tally(0, 24))
    assert fallen(Tally(240, 240), Tally(12, 24))
    assert not risen(Tally(240, 240), Tally(40, 48))
    assert risen(Tally(216, 240), Tally(42, 48))
