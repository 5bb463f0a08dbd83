"""Pauses of a process whose links are refused."""

from __future__ import annotations

import itertools
import random

from daitn.tools.fabric.refused_links import SHORT_S, Reconnection


def refused_for(duration_s: float, seed: int = 1) -> list[float]:
    """When a process connects whose links end at once, though it looks every 10 ms."""
    reconnection = Reconnection(random.Random(seed))
    tries = []
    for step in range(int(100 * duration_s)):
        now_s = step / 100
        if reconnection.may_connect(now_s):
            tries.append(now_s)
            reconnection.closed(0.001, now_s)
    return tries


def test_pauses_grow_to_a_minute_with_jitter() -> None:
    tries = refused_for(3600.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert max(pauses[:2]) < 0.02
    assert 0.5 <= pauses[2] <= 1.01
    assert all(30.0 <= pause_s <= 60.02 for pause_s in pauses[10:])
    assert len(set(pauses[10:])) > 10
    assert tries != refused_for(3600.0, seed=2)


def test_a_link_that_lasts_ends_the_pauses_and_one_from_before_does_not() -> None:
    reconnection = Reconnection(random.Random(1))
    for now_s in (10.0, 10.1, 10.2):
        reconnection.closed(0.001, now_s)
    assert reconnection.refused
    assert not reconnection.may_connect(10.3)
    reconnection.holds(made_at_s=5.0, now_s=20.0)
    assert reconnection.refused
    reconnection.holds(made_at_s=11.0, now_s=11.0 + SHORT_S / 2)
    assert reconnection.refused
    reconnection.holds(made_at_s=11.0, now_s=11.0 + SHORT_S)
    assert not reconnection.refused
    assert reconnection.may_connect(13.1)


def test_links_that_last_are_no_refusals() -> None:
    reconnection = Reconnection(random.Random(1))
    for now_s in range(10, 100, 10):
        reconnection.closed(9.0, float(now_s))
        assert reconnection.may_connect(float(now_s))
