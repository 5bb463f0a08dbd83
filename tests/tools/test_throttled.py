"""A log that others cannot fill."""

from __future__ import annotations

import logging

import pytest

from daitn.tools.throttled import ThrottledLog

LOG = logging.getLogger("daitn.test")


def test_a_kind_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    log = ThrottledLog(LOG)
    for number in range(100):
        log.warning("a", "a happened: %d", number)
        log.warning("b", "b happened: %d", number)
    assert caplog.messages == ["a happened: 0", "b happened: 0"]


def test_what_goes_on_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    log = ThrottledLog(LOG, again_s=0.0)
    for _ in range(3):
        log.warning("a", "a happened")
    assert caplog.messages == ["a happened"] * 3


def test_kinds_that_somebody_makes_up_do_not_fill_it(caplog: pytest.LogCaptureFixture) -> None:
    log = ThrottledLog(LOG, most=5)
    for number in range(10_000):
        log.warning(f"kind {number}", "%d happened", number)
    assert caplog.messages == [
        *(f"{number} happened" for number in range(5)),
        "more warnings are left out for 60 s",
    ]
