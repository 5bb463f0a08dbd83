"""The scenario with a pretrained model that the user has, through all its processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.scenes.demo import run_demo
from tests.scenes.tiny_llama import write_folder

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(2600),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_folder(folder / "tiny", context=512)
    said = run_demo(folder / "out", "--base", str(folder / "tiny"), "--minutes", "30")
    (folder / "said").write_text(said)
    return folder / "out"


@pytest.fixture(scope="module")
def report(out: Path) -> Any:
    return json.loads((out / "report.json").read_text())


def test_targets_follow_from_the_base_and_are_reached(report: Any, out: Path) -> None:
    said = " ".join((out.parent / "said").read_text().split())
    for objective in report["objectives"]:
        measured = report["base"]["measured"][objective["name"]]
        known = max(0.25, measured)
        assert objective["target"] == pytest.approx(known + (1 - known) / 3, abs=1e-3)
        assert objective["untrained"] == measured
        assert objective["reached"] >= objective["target"]
        assert f"{objective['name']}: the base measures {measured:.3f}, so the target" in said


def test_verifiers_and_questions_find_what_was_learnt(report: Any) -> None:
    asked = report["base"]["asked"]
    for topic in ("medicine", "medicine/neurology"):
        assert asked["healthcare-1"][topic] > asked["base-1"][topic]
    streams = {stream["name"]: stream for stream in report["queries"]}
    for stream in streams.values():
        assert stream["answered"] == stream["queries"] == sum(stream["where"].values())
    for test in ("broad", "expert"):
        assert streams[f"{test}, trained"]["accuracy"] > streams[f"{test}, as it was"]["accuracy"]


def test_both_answer_in_plain_words_and_learning_changed_them(report: Any) -> None:
    said = report["base"]["answers"]
    assert len(said) == 3
    for one in said:
        assert one["answers"]["base-1"]
        assert one["answers"]["healthcare-1"] != one["answers"]["base-1"]


def test_the_model_is_there_with_its_card(out: Path) -> None:
    card = (out / "model" / "README.md").read_text()
    assert "in the words of its chat template" in card
    assert (out / "model" / "adapter.safetensors").is_file()
    assert (out / "model" / "base.safetensors").is_file()
