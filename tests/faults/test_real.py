"""Whole runs under faults, of real processes."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from daitn.spawning.spawner import Template
from tests.faults import processes
from tests.faults.playing import play
from tests.faults.real_clocks import Clocks
from tests.faults.run import Outcome
from tests.scenes.waiting import wait_until

_AT_ONCE = ("--at-once", "3")
"""What two processors bear: a run uses a third of one."""
TELLING_TIME = "tests.faults.telling_time"


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1500)
def test_nothing_is_lost_among_real_processes_either() -> None:
    told = play("--real", "--seeds", "0:20", *_AT_ONCE, within_s=1440.0)
    assert told.startswith("20 seeds, ")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Seeds and the networks in which they are played, which go well but for seed 7."""
    networks = iter("abc")
    played: list[tuple[int, str]] = []

    def run_real(outcome: Outcome, real: Any) -> None:
        played.append((outcome.seed, real))
        assert outcome.seed != 7, "it never came to that"

    def somewhere(*, served: bool) -> Any:
        return nullcontext(f"{next(networks)} {'served' if served else 'of a file'}")

    monkeypatch.setattr(processes, "run_real", run_real)
    monkeypatch.setattr(processes, "_somewhere", somewhere)
    monkeypatch.setattr(processes._Own, "_logs", lambda own, outcome: "")
    return played


def test_what_the_harness_does_not_expect_is_a_problem_of_the_seed(
    played: list[tuple[int, str]],
) -> None:
    own = processes._Own()
    problems = [own.play(seed).problems for seed in (5, 7, 9)]
    assert problems[0] == problems[2] == []
    assert "it never came to that" in problems[1][0]
    assert played == [(5, "a served"), (7, "a served"), (9, "b served")]


def test_a_network_plays_the_seeds_of_one_database(played: list[tuple[int, str]]) -> None:
    own = processes._Own()
    for seed in (4, 6, 5):
        own.play(seed)
    assert played == [(4, "a of a file"), (6, "a of a file"), (5, "b served")]


@pytest.mark.processes
def test_a_process_goes_by_the_clock_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is forked from a template that is right; the time that it counts does not
    leap, and is wrong if the clock was wrong as it started."""
    clocks = Clocks(tmp_path / "clocks", ("east", "west"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((clocks.path, str(Path(__file__).parents[2]))))
    clocks.set("west", -7200.0)
    with (tmp_path / "log").open("ab") as log:
        template = Template(("daitn.tools.clock",), os.environ, log)

    def told(lines: int) -> bool:
        return (tmp_path / "told").read_text().count("\n") == lines

    def tells(site: str, before: int) -> None:
        """Twice: before and after its clock is set."""
        lifeline, end = os.pipe()
        with (tmp_path / "told").open("ab") as output:
            files = (lifeline, output.fileno(), output.fileno())
            arguments = ("node", "-c", "network.yaml", "--site", site)
            template.spawn(TELLING_TIME, arguments, files, title=site, environment={})
        os.close(lifeline)
        wait_until(lambda: told(before + 1))
        clocks.set(site, 60.0)
        os.close(end)
        wait_until(lambda: told(before + 2))

    try:
        tells("east", 0)
        tells("west", 2)
    finally:
        template.close()
    lines = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [[round(ahead_s / 30) * 30 for ahead_s in line] for line in lines] == [
        [0, 0],
        [60, 0],
        [-7200, -7200],
        [60, -7200],
    ]


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.timeout(21_660)
def test_many_seeds_among_real_processes() -> None:
    play("--real", "--seeds", "0:200", *_AT_ONCE, within_s=21_600.0)
