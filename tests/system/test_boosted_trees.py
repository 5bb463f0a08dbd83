"""Boosted trees travel as any model does: in a row, in rounds, and to where they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.scenes.breast_cancer import write_intent, write_network

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

MODEL = {
    "recipe": "boosted-trees",
    "seed": 1,
    "config": {"classes": ["benign", "malignant"], "rounds": 5},
}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("hospitals")
    config = write_network(folder)
    network = yaml.safe_load(config.read_text())
    for node in network["nodes"]:
        for dataset in node.get("datasets", ()):
            dataset["policy"]["recipes"] = ["boosted-trees"]
    config.write_text(yaml.safe_dump(network))
    network = running(folder, config)
    yield network
    network.processes.stop()


@pytest.mark.parametrize("algorithm", ["sequential", "fedavg"])
def test_trees_grow_at_three_hospitals_and_come_home(
    hospitals: Network, tmp_path: Path, algorithm: str
) -> None:
    intent = write_intent(
        tmp_path, name=algorithm, model=MODEL, training={"algorithm": algorithm, "epochs": 2}
    )
    out = tmp_path / "model"
    ended = hospitals.daitn("train", "-f", str(intent), "--watch", "-o", str(out), "--json")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    job = json.loads(ended.stdout)
    assert job["state"] == "reached"
    (objective,) = job["objectives"]
    assert objective["reached"] >= 0.93 > job["untrained"]["tumours"]
    assert (out / "predict.py").is_file()
    as_xgboost = tmp_path / "xgboost"
    named = ("model", "export", job["job"], "-o", str(as_xgboost), "--format", "xgboost")
    ended = hospitals.daitn(*named)
    assert ended.returncode == 0, ended.stderr
    described = json.loads((as_xgboost / "model.json").read_text())
    trees = described["learner"]["gradient_booster"]["model"]["trees"]
    assert len(trees) >= 10


def test_medians_of_trees_are_refused_with_a_way_out(hospitals: Network, tmp_path: Path) -> None:
    intent = write_intent(
        tmp_path, name="median", model=MODEL, training={"algorithm": "median", "epochs": 1}
    )
    ended = hospitals.daitn("train", "-f", str(intent), "--watch", "--json")
    assert ended.returncode != 0
    assert "fedavg" in ended.stdout + ended.stderr
