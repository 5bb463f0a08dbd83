"""Recording real training, and the recordings that come with the project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.record_worlds import FAMILIES, record
from benchmarks.worlds.files import FOLDER, families, load
from benchmarks.worlds.recorder import Case
from benchmarks.worlds.routes import Effort
from benchmarks.worlds.tables import table_cases

from daitn.objects.errors import Corrupt
from daitn.sim.learning.recordings import Recording, read_recording

MOST_BYTES = 3_000_000


@pytest.fixture
def case(tmp_path: Path) -> Case:
    first = next(table_cases("wine", tmp_path / "data"))
    return replace(first, effort=Effort(random_routes=4, most_visits=3, most_examples=100))


def recorded(case: Case, folder: Path, minutes: float = 1.0) -> Recording:
    return record("wine", [case], folder / "work", folder / "out", minutes)


def without_seconds(recording: Recording) -> object:
    (split,) = recording.splits
    return [(node.route, node.loss, node.measured) for node in split.nodes.values()]


def test_what_is_recorded_is_read_back(case: Case, tmp_path: Path) -> None:
    made = recorded(case, tmp_path)
    assert load("wine", tmp_path / "out") == made
    (split,) = made.splits
    assert () in split.nodes, "what the model can before the first visit"
    assert {node.held_out for node in split.nodes.values()} == {False, True}
    assert any(len(route) == 3 for route in split.walked())
    assert set(split.split.targets) == {"broad", "expert"}


def test_the_same_seeds_give_the_same_numbers(case: Case, tmp_path: Path) -> None:
    once, again = recorded(case, tmp_path / "1"), recorded(case, tmp_path / "2")
    assert without_seconds(once) == without_seconds(again)


def test_an_interrupted_recording_continues_to_the_same_result(case: Case, tmp_path: Path) -> None:
    begun = recorded(case, tmp_path, minutes=0)
    ended = recorded(case, tmp_path)
    assert len(begun.splits[0].nodes) == 1
    assert without_seconds(ended) == without_seconds(recorded(case, tmp_path / "whole"))


def test_a_broken_recording_is_told() -> None:
    with pytest.raises(Corrupt, match="empty"):
        read_recording([])
    header = b'{"format":1,"family":"f","command":"c","recorded_on":'
    machine = b'{"cpu":"c","cores":1,"threads":1,"torch":"2","date":"d"}}'
    with pytest.raises(Corrupt, match="line 2"):
        read_recording([header + machine, b'{"split":"s","route":[[0,"many"]]}'])
    with pytest.raises(Corrupt, match="format 2"):
        read_recording([header.replace(b"1", b"2", 1) + machine])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_with_the_project(family: str) -> None:
    recording = load(family)
    assert recording.header.family == family
    for split in recording.splits:
        told, names = split.split, [test.objective for test in split.split.tests]
        assert names[:2] == ["broad", "expert"]
        assert set(told.targets) == set(names)
        assert not told.repeats or told.repeats in {one.split.split for one in recording.splits}
        for route, node in split.nodes.items():
            assert not route or route[:-1] in split.nodes
            assert list(node.measured) == names
            assert all(0 <= site < len(told.sites) and examples > 0 for site, examples in route)


def test_another_expert_can_be_asked() -> None:
    clinic = load("clinic").splits[0]
    other = clinic.asking("expert-nhlbi")
    assert [test.objective for test in other.split.tests] == ["broad", "expert"]
    assert other.split.tests[1].topic == "medicine/cardiology"
    route = clinic.walked()[0]
    assert other.nodes[route].measured["expert"] == clinic.nodes[route].measured["expert-nhlbi"]


def test_recordings_stay_small() -> None:
    assert set(families()) == set(FAMILIES)
    assert sum(path.stat().st_size for path in FOLDER.glob("*.gz")) < MOST_BYTES
