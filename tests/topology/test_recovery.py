"""A deployment that was slow, and that nobody asked since, looks as it usually does again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.topology.qrrt.observation import Observation, Seen, averaged
from daitn.topology.qrrt.recovery import HALF_S, SLOW, Recovery

TIMES = st.lists(st.tuples(st.floats(0.01, 10.0), st.floats(0.0, 100.0)), min_size=1, max_size=30)


def told(recovery: Recovery, says: dict[float, float]) -> float:
    """Report after report, at these seconds; what is expected at the last."""
    expected = 0.0
    for at_s, said in says.items():
        expected = recovery.expected(said, at_s)
    return expected


def test_what_was_slow_is_expected_to_recover_while_nobody_asks_it() -> None:
    recovery = Recovery(0.1, 0.0)
    slow = told(recovery, {1.0: 0.1, 2.0: 0.5, 3.0: 1.0})
    assert slow == pytest.approx(1.0, rel=0.01)
    assert told(recovery, {3.0 + HALF_S: 1.0}) == pytest.approx(0.55, rel=0.02)
    assert told(recovery, {3.0 + 10 * HALF_S: 1.0}) == pytest.approx(0.1, abs=0.005)


def test_one_more_slow_query_makes_it_slow_again() -> None:
    recovery = Recovery(0.1, 0.0)
    told(recovery, {1.0: 1.0, 21.0: 1.0})
    assert told(recovery, {22.0: 1.001}) == pytest.approx(1.0, rel=0.02)


def test_what_is_always_so_is_expected_as_it_is_said() -> None:
    recovery = Recovery(0.5, 0.0)
    assert told(recovery, {float(s): 0.5 for s in range(1, 1000)}) == 0.5
    assert told(recovery, {1000.0: 0.5 * SLOW}) == 0.5 * SLOW


def test_what_stays_slow_becomes_usual() -> None:
    recovery = Recovery(0.1, 0.0)
    expected = told(recovery, {60.0 * n: 1.0 + n * 1e-6 for n in range(1, 100)})
    assert expected == pytest.approx(1.0, rel=0.01)
    assert told(recovery, {60.0 * 100: 1.0 + 99e-6}) == pytest.approx(1.0, rel=0.01)


@given(TIMES)
def test_nothing_is_expected_that_was_never_said(reports: list[tuple[float, float]]) -> None:
    recovery, now_s, said = Recovery(reports[0][0], 0.0), 0.0, [reports[0][0]]
    for value, pause_s in reports:
        now_s += pause_s
        said.append(value)
        assert min(said) * 0.999 <= recovery.expected(value, now_s) <= value * 1.001


def test_after_a_pause_the_newest_query_tells_most() -> None:
    assert averaged(1.0, 0.1) == pytest.approx(0.82)
    assert averaged(1.0, 0.1, age_s=100.0) == pytest.approx(0.1)
    seen = Seen()
    seen.take(Observation(failed=False, first_token_s=1.0), 1000.0)
    assert seen.averages["first_token_s"] == 1.0
    seen.take(Observation(failed=False, first_token_s=0.1), 1100.0)
    assert seen.averages["first_token_s"] == pytest.approx(0.1)


def test_failures_are_not_forgotten_for_a_pause() -> None:
    seen = Seen()
    seen.take(Observation(failed=True), 0.0)
    share = seen.averages["error_share"]
    seen.take(Observation(failed=False), 100.0)
    assert seen.averages["error_share"] == pytest.approx(0.8 * share)
