"""The paper's scenario end to end: fifteen processes, one demo; and another one that compares the
planned route with other ways to train the model."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.scenes.demo import run_demo

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(2600)]

PLANNED, COMPARED = "--no-baselines", "--baselines"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(PLANNED, marks=pytest.mark.alone),
        pytest.param(COMPARED, marks=pytest.mark.long),
    ],
)
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder, made from the corpus that the project brings."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    (folder.parent / "said").write_text(run_demo(folder, request.param))
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> Any:
    return json.loads((out / "report.json").read_text())


def test_the_demo_says_what_protects_it(out: Path) -> None:
    said = " ".join((out.parent / "said").read_text().split())
    assert re.search(r"protection: roster \(\d+ members\) and capabilities", said)
    assert "mTLS on; sandbox on (" in said


def test_the_planned_route_reaches_both_targets(report: Any) -> None:
    assert report["data_source"] == "clinic"
    reached = {o["name"]: o["reached"] for o in report["objectives"]}
    targets = {o["name"]: o["target"] for o in report["objectives"]}
    assert targets == {"broad": 0.80, "expert": 0.90}
    assert all(reached[name] >= target for name, target in targets.items())
    assert {o["verifier"] for o in report["objectives"]} == {"mpvu-broad", "mpvu-expert"}
    assert "ninds" in [stop["site"] for stop in report["route"]]
    assert len({stop["site"] for stop in report["route"]}) > 1


@pytest.mark.parametrize("out", [pytest.param(COMPARED, marks=pytest.mark.long)], indirect=True)
def test_every_other_way_fails_where_it_must(report: Any) -> None:
    passes = {baseline["name"]: baseline["passes"] for baseline in report["baselines"]}
    assert passes["untrained"] == {"broad": False, "expert": False}
    assert not passes["general sites only"]["expert"]
    assert not passes["specialist only"]["broad"]


@pytest.mark.parametrize("out", [pytest.param(COMPARED, marks=pytest.mark.long)], indirect=True)
def test_the_obvious_routes_run_beside_the_planned_one(report: Any) -> None:
    baselines = {baseline["name"]: baseline for baseline in report["baselines"]}
    obvious = [
        baselines[name] for name in ("by size, 1 epoch", "by size, 2 epochs", "ring, 500 examples")
    ]
    for way in obvious:
        assert way["holds"] == all(way["passes"].values())
        assert way["bytes_moved"] > 0
        assert way["seconds"] > 0
    assert [way["route"][0] for way in obvious] == ["ghr", "ghr", "cancergov"]
    ring = obvious[-1]
    assert ring["examples"] == 500 * len(ring["route"])
    assert report["expected"][0]["way"] == "planned route"


def test_the_report_accounts_for_the_job(report: Any) -> None:
    assert report["algorithm"] in ("sequential", "cyclic")
    assert report["bytes_moved"] >= sum(stop["bytes_in"] for stop in report["route"]) > 0
    for stop in report["route"]:
        assert stop["work"] > 0
        assert stop["seconds"] > 0
        assert set(stop["gains"]) == {"broad", "expert"}
    last = report["route"][-1]["values"]
    assert last == {o["name"]: o["reached"] for o in report["objectives"]}


def test_what_was_trained_is_found_and_asked(report: Any, out: Path) -> None:
    assert len(report["queries"]) == 3
    for stream in report["queries"]:
        assert stream["answered"] == stream["queries"] == sum(stream["where"].values())
        assert stream["failures"] == []
        assert stream["overhead_p50_ms"] < stream["p50_ms"]
        assert stream["decision"].startswith("gateway:")
    broad, expert, _ = report["queries"]
    assert broad["accuracy"] >= 0.7
    assert expert["accuracy"] >= 0.8
    assert all("general-1" not in where for where in expert["where"])
    assert ElementTree.parse(out / "queries.svg").getroot().tag.endswith("svg")


def test_there_is_a_picture_and_a_model_with_its_card(out: Path) -> None:
    assert "Where the model comes from" in (out / "report.html").read_text()
    root = ElementTree.parse(out / "network.svg").getroot()
    assert root.tag.endswith("svg")
    text = "".join(root.itertext())
    assert "ninds" in text
    card = (out / "model" / "README.md").read_text()
    assert "no proof of fitness" in card
    assert (out / "model" / "weights.safetensors").stat().st_size > 0


def test_no_disease_of_a_test_is_in_any_training_file(out: Path) -> None:
    def topics(folder: str) -> set[str]:
        files = (out / "data" / folder).glob("*.jsonl")
        lines = (line for file in files for line in file.read_text().splitlines())
        return {json.loads(line)["topic"].strip().casefold() for line in lines}

    assert topics("tests")
    assert not topics("tests") & topics("sites")
