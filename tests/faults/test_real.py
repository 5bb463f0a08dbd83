"""Whole runs under faults, of real processes."""

from __future__ import annotations

import pytest

from tests.faults.playing import play

_AT_ONCE = ("--at-once", "3")
"""What two processors bear: a run uses a third of one."""


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1500)
def test_nothing_is_lost_among_real_processes_either() -> None:
    told = play("--real", "--seeds", "0:20", *_AT_ONCE, within_s=1440.0)
    assert told.startswith("20 seeds, ")


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(21_660)
def test_many_seeds_among_real_processes() -> None:
    play("--real", "--seeds", "0:200", *_AT_ONCE, within_s=21_600.0)
