"""A verifier probes models for canaries: what it finds is signed, reported, and decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.identity.signing import check_lineage
from daitn.objects.lineage import Lineage, Verification
from daitn.objects.wire import checked
from tests.scenes.canaries import CANARIES, CLASSES, RECORDS, SITE, VERIFIER, canary_nodes

from .conftest import Network, build

pytestmark = [pytest.mark.processes, pytest.mark.slow]

KNOWS, DISCREET = 0.7, 0.33
"""Targets: of accuracy, and of how often an attack on the model is wrong about a canary."""
OBJECTIVES = [
    {"name": "knows", "topic": "patients", "at_least": KNOWS},
    {
        "name": "discreet", "topic": "patients/probes", "metric": "unexposed", "at_least": DISCREET,
    },
]  # fmt: skip
MODEL = {
    "recipe": "classifier",
    "seed": 1,
    "config": {
        "classes": list(CLASSES),
        "hidden": [128],
        "learning_rate": 0.01,
        "ranges": {"*": [-3, 3]},
    },
}


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("canaries")
    network = build(folder, canary_nodes(folder))
    yield network
    network.processes.stop()


def trained(network: Network, name: str, epochs: int, **training: Any) -> tuple[int, Any]:
    """The exit code of training, and the job as it ended."""
    intent = {
        "name": name,
        "owner": "acme",
        "model": MODEL,
        "objectives": OBJECTIVES,
        "data": {"topics": ["patients"]},
        "route": [{"site": SITE, "examples": epochs * RECORDS}],
        **training,
    }
    path = network.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(intent))
    ended = network.daitn("train", "-f", str(path), "--watch", "--json")
    return ended.returncode, json.loads(ended.stdout)


def signed_figures(network: Network, job: str, out: Path) -> list[Verification]:
    """What verifiers signed about the weights that a job is left with, from its exported lineage,
    whose signatures are checked with the sites' keys."""
    ended = network.daitn("model", "export", job, "-o", str(out))
    assert ended.returncode == 0, ended.stderr
    lineage = checked(json.loads((out / "lineage.json").read_text()), Lineage, "lineage")
    nodes = [node["descriptor"] for node in network.json("get", "nodes")]
    check_lineage(lineage, {node["site"]: node["public_key"] for node in nodes})
    facts = [one.fact for one in lineage.entries if isinstance(one.fact, Verification)]
    return [fact for fact in facts if fact.model == facts[-1].model]


def check_told(network: Network, job: dict[str, Any], out: Path) -> float:
    """The measured exposure, which the job, the lineage, the card and the report must agree on."""
    told = {one["name"]: one for one in job["objectives"]}["discreet"]
    assert told["verifier"] == VERIFIER
    (fact,) = (one for one in signed_figures(network, job["job"], out) if one.metric == "unexposed")
    assert (fact.site, fact.topic, fact.items) == (VERIFIER, "patients/probes", 2 * CANARIES)
    assert fact.value == told["reached"]
    assert f"| unexposed | patients/probes | {fact.value:.4f} |" in (out / "README.md").read_text()
    page = out.with_suffix(".html")
    assert network.daitn("report", job["job"], "-o", str(page)).returncode == 0
    shown = page.read_text()
    assert "unexposed on patients/probes" in shown
    assert f"{fact.value:.3f}" in shown
    return fact.value


def test_a_model_trained_for_too_long_is_found_exposed_and_misses_its_target(
    probing: Network, tmp_path: Path
) -> None:
    code, job = trained(probing, "by-heart", epochs=60)
    assert code != 0
    assert job["state"] == "exhausted"
    assert check_told(probing, job, tmp_path / "by-heart") < DISCREET
    reached = {one["name"]: one["reached"] for one in job["objectives"]}
    assert reached["knows"] >= KNOWS, "what it misses is discretion alone"


def test_a_model_trained_privately_is_not_found_exposed_and_meets_it(
    probing: Network, tmp_path: Path
) -> None:
    wish = {"privacy": {"epsilon": 4, "visits": 1}}
    code, job = trained(probing, "private", epochs=20, training=wish)
    assert code == 0
    assert job["state"] == "reached"
    assert check_told(probing, job, tmp_path / "private") >= DISCREET
