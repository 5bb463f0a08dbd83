"""Everything that a user can get wrong ends with a sentence that names field and fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.scenes.breast_cancer import HOSPITALS, INTENT, write_intent, write_network
from tests.scenes.command_line import Ended
from tests.scenes.ports import free_port
from tests.scenes.waiting import PATIENCE_S, wait_until

from .conftest import Network, running

pytestmark = pytest.mark.processes


def said(ended: Ended) -> str:
    """What the user reads; never a traceback."""
    assert "Traceback" not in ended.stderr + ended.stdout
    return " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"objectives": [{"name": "t", "topic": "x", "at_least": 93}]}, "objectives[0].at_least"),
        ({"objective": "everything"}, "objective"),
        ({"model": {"recipe": "classifier", "seed": -1}}, "model.seed"),
        ({"name": "Ärzte & Co"}, "name"),
    ],
)
def test_a_malformed_intent(
    shared: Network, tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    path = tmp_path / "intent.yaml"
    path.write_text(yaml.safe_dump({**INTENT, **change}))
    ended = shared.daitn("train", "-f", str(path))
    assert ended.returncode == 2
    assert field in said(ended)
    assert "fix" in ended.stderr


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n- 2", "\x00"])
def test_a_file_that_is_no_intent_at_all(shared: Network, tmp_path: Path, text: str) -> None:
    path = tmp_path / "intent.yaml"
    path.write_text(text)
    ended = shared.daitn("train", "-f", str(path))
    assert ended.returncode == 2
    assert "fix" in said(ended)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_job_to_start_from_that_is_not_there(
    shared: Network, tmp_path: Path, options: tuple[str, ...]
) -> None:
    intent = write_intent(tmp_path, model={**INTENT["model"], "start": "job:none-1"})
    ended = shared.daitn("train", "-f", str(intent), *options)
    assert ended.returncode == 2
    assert "model.start: there is no job none-1" in said(ended)
    assert "daitn get jobs" in said(ended)


def test_a_model_sets_out_from_a_forwarder_alone(shared: Network, tmp_path: Path) -> None:
    """And who names another site, or none there is, hears which role is missing, and what to do."""
    intent = str(write_intent(tmp_path))
    for asked in (
        ("train", "-f", intent, "--autonomous", "--dry-run", "--site", "north"),
        ("train", "-f", intent, "--autonomous", "--site", "north"),
        ("watch", "wisconsin-1", "--site", "north"),
        ("cancel", "wisconsin-1", "--site", "north"),
        ("ping", "--site", "north", "--topic", "oncology"),
    ):
        ended = shared.daitn(*asked)
        assert ended.returncode == 3, ended.stderr
        assert "--site: north does not have the role forwarder, but data, compute" in said(ended)
        assert "give north the role" in said(ended)
    nowhere = shared.daitn("train", "-f", intent, "--autonomous", "--site", "nowhere")
    assert nowhere.returncode == 4
    assert "--site: nobody answers as the site nowhere" in said(nowhere)
    assert "daitn get nodes" in said(nowhere)


def test_an_unknown_recipe_names_those_there_are(shared: Network, tmp_path: Path) -> None:
    intent = write_intent(tmp_path, model={"recipe": "alchemy"})
    ended = shared.daitn("train", "-f", str(intent))
    assert ended.returncode == 2
    assert "model.recipe" in said(ended)
    assert "classifier" in said(ended)


def test_a_wrong_configuration_names_its_field(shared: Network, tmp_path: Path) -> None:
    model = {"recipe": "classifier", "config": {"classes": ["a", "b"], "hiden": [3]}}
    ended = shared.daitn("train", "-f", str(write_intent(tmp_path, model=model)))
    assert ended.returncode == 2
    assert "model.config" in said(ended)
    assert "hiden" in said(ended)


@pytest.mark.parametrize("route", [[], [{"site": "east", "examples": 50}]])
def test_classes_that_the_data_does_not_have_are_told_before_a_job_starts(
    shared: Network, tmp_path: Path, route: list[dict[str, Any]]
) -> None:
    model = {"recipe": "classifier", "config": {"classes": ["0", "1"]}}
    intent = write_intent(tmp_path, model=model, route=route)
    ended = shared.daitn("train", "-f", str(intent), "--dry-run")
    assert ended.returncode == 3
    told = " ".join(ended.stdout.split())
    assert "east" in told
    assert "labels benign, malignant are not among model.config.classes (0, 1)" in told


@pytest.mark.parametrize("route", [[], [{"site": "east", "examples": 50}]])
@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"features": 3}, "model.config.features is for 3"),
        ({"ranges": {"radius": [0, 50], "area": [0, 900]}}, "model.config.ranges is for at most 2"),
    ],
)
def test_columns_that_the_data_does_not_have_are_told_before_a_job_starts(
    shared: Network, tmp_path: Path, config: dict[str, Any], field: str, route: list[dict[str, Any]]
) -> None:
    (known,) = {data["columns"] for data in shared.json("get", "datasets")}
    model = {**INTENT["model"], "config": {**INTENT["model"]["config"], **config}}
    intent = write_intent(tmp_path, model=model, route=route)
    ended = shared.daitn("train", "-f", str(intent), "--dry-run")
    assert ended.returncode == 3
    told = " ".join(ended.stdout.split())
    assert f"it has {known} columns to learn from, {field}; state" in told
    assert f"the test set on oncology/breast has {known} columns, {field}; state" in told


def test_a_base_without_its_weights_is_told_before_a_job_starts(
    shared: Network, tmp_path: Path
) -> None:
    sizes = ("base_parameters", "adapted_parameters", "adapted_widths", "base_dtype")
    config = {"base": "base.safetensors", **dict.fromkeys(sizes[:3], 1000), sizes[3]: "float32"}
    intent = write_intent(tmp_path, model={"recipe": "causal-lm", "config": config})
    ended = shared.daitn("train", "-f", str(intent), "--dry-run")
    assert ended.returncode == 3, said(ended)
    assert "state where it is in model.start" in " ".join(ended.stdout.split())


def test_a_control_centre_that_is_not_there(shared: Network, tmp_path: Path) -> None:
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    ended = shared.daitn("train", "-f", str(write_intent(tmp_path)), "--center", endpoint)
    assert ended.returncode == 4
    assert endpoint in said(ended).replace(" ", "")
    assert "fix" in ended.stderr


def test_an_unknown_job(shared: Network) -> None:
    ended = shared.daitn("describe", "job", "nobody-7")
    assert ended.returncode == 2
    assert "nobody-7" in said(ended)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"roles": ["data", "wizard"]}, "roles[1]"),
        ({"datasets": []}, "datasets"),
        ({"jurisdiction": "Utopia"}, "jurisdiction"),
        ({"recipes": ["alchemy"]}, "recipes[0]"),
        ({"site": "center"}, "site"),
        ({"sight": "east"}, "sight"),
    ],
)
def test_a_node_file_that_is_wrong(
    shared: Network, tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    plain = yaml.safe_load(write_network(tmp_path).read_text())
    node = {**plain["defaults"], **plain["nodes"][0], "insecure": True, **change}
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(node))
    ended = shared.daitn("node", "-c", str(path))
    assert ended.returncode == 2
    assert field in said(ended)


def test_a_network_with_wrong_data_starts_and_says_what_it_does_without(tmp_path: Path) -> None:
    path = write_network(tmp_path, verifiers=())
    plain = yaml.safe_load(path.read_text())
    east, north, _ = (tmp_path / f"{name}.csv" for name in HOSPITALS)
    good, text = east.read_text(), north.read_text()
    east.write_text(good.splitlines()[0] + "\n")
    north.write_text(text.replace(",label", ",Diagnosis", 1))
    del plain["nodes"][2]["datasets"][0]["policy"]
    path.write_text(yaml.safe_dump(plain))
    network = running(tmp_path, path)
    try:
        assert network.json("get", "datasets") == []
        for name, reason in (
            ("east", "the data has no records"),
            ("north", "malformed: 2 problems"),
            ("west", "missing required field `policy`"),
        ):
            node = network.json("describe", "node", name)["descriptor"]
            assert node["datasets"] == []
            (left,) = node["left_out"]
            assert (left["field"], left["name"]) == ("datasets[0]", "biopsies")
            assert reason in left["reason"]
        east.write_text(good)
        plain["nodes"][1]["datasets"][0]["label"] = "Diagnosis"
        path.write_text(yaml.safe_dump(plain))
        for name in ("east", "north"):
            network.processes.kill(name)
        network.mend()
        wait_until(
            lambda: {d["site"] for d in network.json("get", "datasets")} == {"east", "north"}
        )
    finally:
        network.processes.stop()


def test_a_folder_that_is_not_empty_is_not_written_into(shared: Network, tmp_path: Path) -> None:
    intent = write_intent(tmp_path, name="full", route=[{"site": "east", "examples": 50}])
    shared.daitn("train", "-f", str(intent), "--watch", "--insist")
    ended = shared.daitn("model", "export", "full-1", "-o", str(tmp_path))
    assert ended.returncode == 2
    assert "--out" in said(ended)


def test_a_state_folder_belongs_to_one_process(shared: Network) -> None:
    network = str(shared.folder / "network.yaml")
    ended = shared.daitn("node", "-c", network, "--site", HOSPITALS[0])
    assert ended.returncode == 2
    assert "another process uses" in said(ended)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:7447", "garbage", "tcp/127.0.0.1:99999"])
def test_an_endpoint_that_is_none(shared: Network, endpoint: str) -> None:
    ended = shared.daitn("get", "jobs", "--center", endpoint)
    assert ended.returncode == 2
    assert "DAITN_CENTER" in said(ended)


@pytest.mark.parametrize("name", ["[/x]", "", "../etc"])
def test_names_are_text_and_checked(shared: Network, name: str) -> None:
    ended = shared.daitn("describe", "job", name)
    assert ended.returncode == 2
    assert repr(name) in said(ended)


def test_a_network_dies_with_the_one_who_started_it(tmp_path: Path) -> None:
    network = write_network(tmp_path)
    plain = yaml.safe_load(network.read_text())
    del plain["nodes"][1:3]  # One that trains and one that measures are enough.
    network.write_text(yaml.safe_dump(plain))
    parent = subprocess.Popen(
        [sys.executable, "-m", "daitn.cli.app", "up", "-c", str(network)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert any("ready" in line for line in parent.stdout)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 5
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive
