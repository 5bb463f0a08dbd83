"""Whole runs under faults, of real processes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from tests.faults import processes
from tests.faults.playing import play
from tests.faults.run import Outcome

_AT_ONCE = ("--at-once", "3")
"""What two processors bear: a run uses a third of one."""


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1500)
def test_nothing_is_lost_among_real_processes_either() -> None:
    told = play("--real", "--seeds", "0:20", *_AT_ONCE, within_s=1440.0)
    assert told.startswith("20 seeds, ")


def test_what_the_harness_does_not_expect_is_a_problem_of_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    networks = iter("ab")
    played: list[Any] = []

    def run_real(outcome: Outcome, real: Any) -> None:
        played.append(real)
        assert outcome.seed != 6, "it never came to that"

    monkeypatch.setattr(processes, "run_real", run_real)
    monkeypatch.setattr(processes, "_somewhere", lambda: nullcontext(next(networks)))
    monkeypatch.setattr(processes._Own, "_logs", lambda own, outcome: "")
    own = processes._Own()
    problems = [own.play(seed).problems for seed in (5, 6, 7)]
    assert problems[0] == problems[2] == []
    assert "it never came to that" in problems[1][0]
    assert played == ["a", "a", "b"]


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(21_660)
def test_many_seeds_among_real_processes() -> None:
    play("--real", "--seeds", "0:200", *_AT_ONCE, within_s=21_600.0)
