"""What happens later is of later, whatever is done to the wall clock."""

from __future__ import annotations

import time

import pytest

from daitn.objects.identifiers import SiteId
from daitn.tools import clock
from daitn.tools.sensing.estimates import LinkEstimate
from daitn.topology.network import merged_link


@pytest.mark.parametrize("by_s", [-3600.0, -86_400.0 * 365, 3600.0])
def test_a_clock_that_is_set_changes_no_time(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    before_s = clock.now_s()
    true_s = time.time
    monkeypatch.setattr(time, "time", lambda: true_s() + by_s)
    assert before_s <= clock.now_s() < before_s + 600
    assert abs(clock.wall_s() - clock.now_s() - by_s) < 600


def test_what_is_measured_after_the_clock_was_set_back_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = LinkEstimate(SiteId("a"), SiteId("b"))
    link.learn_echoes([0.1], 1, clock.now_s())
    before = link.reading()
    true_s = time.time
    monkeypatch.setattr(time, "time", lambda: true_s() - 3600.0)
    link.learn_echoes([0.5], 1, clock.now_s())
    merged = merged_link(before, link.reading(), clock.now_s())
    assert merged.rtt_s is not None
    assert merged.rtt_s.value == 0.5


def test_a_later_life_of_a_process_is_of_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_epoch_s", clock._epoch_s)
    last_s = clock.now_s() + 3600.0
    clock.not_before(last_s)
    first_s = clock.now_s()
    assert last_s <= first_s <= clock.now_s()
    clock.not_before(last_s - 7200.0)
    assert clock.now_s() >= first_s
