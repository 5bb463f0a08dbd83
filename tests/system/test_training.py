"""The main job, as an owner and an operator meet it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from daitn.identity.signing import check_lineage
from daitn.objects.lineage import Lineage, Merge, Verification, Visit
from daitn.objects.wire import checked
from tests.scenes.breast_cancer import INTENT, write_intent
from tests.scenes.waiting import wait_until

from .conftest import Network

pytestmark = pytest.mark.processes


def test_a_classifier_learns_at_three_hospitals_and_comes_home(
    shared: Network, tmp_path: Path
) -> None:
    # No other job's model: no site has parts of it already.
    intent = write_intent(tmp_path, model={**INTENT["model"], "seed": 5})
    out = tmp_path / "model"
    ended = shared.daitn("train", "-f", str(intent), "--watch", "-o", str(out), "--json")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    job = json.loads(ended.stdout)
    assert job["state"] == "reached"
    (objective,) = job["objectives"]
    assert objective["reached"] >= 0.93 > job["untrained"]["tumours"]
    assert objective["verifier"] == "mpvu"
    assert {visit["site"] for visit in job["route"]} <= {"east", "north", "west"}
    assert all(visit["bytes_in"] > 0 for visit in job["route"])
    assert load_file(out / "weights.safetensors")
    lineage = checked(json.loads((out / "lineage.json").read_text()), Lineage, "lineage")
    keys = {
        n["descriptor"]["site"]: n["descriptor"]["public_key"] for n in shared.json("get", "nodes")
    }
    check_lineage(lineage, keys)
    measured = [e.fact.value for e in lineage.entries if isinstance(e.fact, Verification)]
    assert measured[-1] == objective["reached"]
    card = (out / "README.md").read_text()
    assert f"measured by mpvu: oncology/breast {measured[-1]:.4f}" in card
    trained = shared.json("get", "models")["trained"]
    (model,) = [m for m in trained if m["name"] == job["job"]]
    assert model["measured"]["tumours"] == objective["reached"]
    check_explained(shared, job)


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ("fedavg", {}),
        ("fedadam", {"compression": "int8"}),
        ("median", {}),
        ("fedbuff", {}),
        ("scaffold", {}),
        ("fedseq", {}),
    ],
)
def test_hospitals_train_in_rounds_and_one_of_them_merges(
    shared: Network, tmp_path: Path, algorithm: str, more: dict[str, object]
) -> None:
    training = {"algorithm": algorithm, "epochs": 3, **more}
    intent = write_intent(tmp_path, name=algorithm, training=training)
    out = tmp_path / "model"
    ended = shared.daitn("train", "-f", str(intent), "--watch", "-o", str(out), "--json")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    job = json.loads(ended.stdout)
    assert job["state"] == "reached"
    assert job["algorithm"] == algorithm
    rounds = {visit["round"] for visit in job["route"]}
    assert rounds == set(range(1, len(rounds) + 1))
    for number in rounds:
        sites = [visit["site"] for visit in job["route"] if visit["round"] == number]
        assert set(sites) <= {"east", "north", "west"}
        assert len(set(sites)) == len(sites) >= 2, "half of them at least: who is late comes later"
    lineage = checked(json.loads((out / "lineage.json").read_text()), Lineage, "lineage")
    keys = {
        n["descriptor"]["site"]: n["descriptor"]["public_key"] for n in shared.json("get", "nodes")
    }
    check_lineage(lineage, keys)
    merges = [entry for entry in lineage.entries if isinstance(entry.fact, Merge)]
    assert len(merges) == len(rounds)
    facts = [entry.fact for entry in merges if isinstance(entry.fact, Merge)]
    chained = algorithm == "fedseq"
    assert sum(len(fact.models) for fact in facts) == len(job["route"]) - chained * len(rounds)
    updates = [
        entry.fact
        for entry in lineage.entries
        if isinstance(entry.fact, Visit) and entry.fact.compression == "int8"
    ]
    assert bool(updates) == (len(rounds) > 1 and "compression" in more)
    assert "merged at" in (out / "README.md").read_text()
    explained = shared.json("explain", job["job"])
    assert "merged at" in explained["decision"]["chosen"]
    assert ("sites in 2 chains" in explained["decision"]["chosen"]) == chained
    shown = shared.daitn("explain", job["job"]).stdout
    assert "at the same time" in shown
    assert any(site in shown for site in ("east", "north", "west"))
    if algorithm in ("fedavg", "fedadam", "median"):
        check_valued(shared, job, [len(fact.models) for fact in facts], tmp_path / "report.html")


def check_valued(network: Network, job: dict[str, Any], sites: list[int], page: Path) -> None:
    """Its rounds, of so many sites, are measured with some of these only; the report tells it."""
    value = network.json("value", job["job"], "--measure")
    assert value["valuation"] == "ended", value
    assert value["method"] == "shapley", value
    assert value["rounds_measured"] == value["rounds"] == len(sites)
    assert {c["site"] for c in value["credits"]} == {visit["site"] for visit in job["route"]}
    gained = job["objectives"][0]["reached"] - job["untrained"]["tumours"]
    assert value["gain"]["tumours"] == pytest.approx(gained)
    assert sum(c["value"]["tumours"] for c in value["credits"]) == pytest.approx(gained)
    assert all(c["standard_error"]["tumours"] > 0 for c in value["credits"])
    if job["algorithm"] != "median":  # Which merges no fewer than three.
        assert value["coalitions"] == sum(2**count - 2 for count in sites)
    assert network.daitn("report", job["job"], "-o", str(page)).returncode == 0
    said = page.read_text()
    assert "divided by Shapley values" in said
    assert "entries are signed with their sites" in said
    assert network.json("report", job["job"])["value"] == value


def check_explained(network: Network, job: dict[str, Any]) -> None:
    """Every decision of the job can be seen, each by its number."""
    name = job["job"]
    explained = network.json("explain", name)
    made = explained["decisions"]
    assert made[-1]["decision"] == explained["decision"]
    chosen = [d["route"]["visits"][0]["site"] for d in made if d["route"]]
    assert chosen[1:] == [visit["site"] for visit in job["route"]], "the first makes the model"
    assert network.json("explain", name, "--decision", "1") == made[0]
    shown = network.daitn("explain", name, "--decision", "1").stdout
    assert f"decision 1 of {len(made)}" in shown
    assert "chosen route" in shown
    beyond = network.daitn("explain", name, "--decision", str(len(made) + 1))
    assert beyond.returncode == 2
    assert f"decisions 1 to {len(made)}" in " ".join(beyond.stderr.split())


def test_a_dry_run_starts_nothing(shared: Network, tmp_path: Path) -> None:
    before = shared.json("get", "jobs")
    ended = shared.daitn("train", "-f", str(write_intent(tmp_path)), "--dry-run", "--json")
    assert ended.returncode == 0, ended.stderr
    assessment = json.loads(ended.stdout)
    assert assessment["feasible"]
    assert assessment["route"]["visits"]
    assert shared.json("get", "jobs") == before


def test_an_intent_nobody_can_satisfy_is_told_why_and_what_would_help(
    shared: Network, tmp_path: Path
) -> None:
    intent = write_intent(tmp_path, requirements=[{"quantity": "jurisdiction", "one_of": ["FR"]}])
    ended = shared.daitn("train", "-f", str(intent), "--dry-run", "--json")
    assert ended.returncode == 3
    assessment = json.loads(ended.stdout)
    assert not assessment["feasible"]
    assert assessment["reasons"]
    assert any(r["field"] == "requirements[0]" for r in assessment["relaxations"])
    submitted = shared.daitn("train", "-f", str(intent), "--watch", "--json")
    assert submitted.returncode == 3
    assert json.loads(submitted.stdout)["state"] == "infeasible"


def test_no_record_and_no_path_is_published(shared: Network) -> None:
    nodes = json.dumps(shared.json("get", "nodes"))
    assert ".csv" not in nodes
    assert str(shared.folder) not in nodes


def test_the_topology_is_measured_live_and_goes_out_as_graphml(
    shared: Network, tmp_path: Path
) -> None:
    def measured() -> set[tuple[str, str]]:
        links = shared.json("topology", "show")["links"]
        return {(link["source"], link["target"]) for link in links if link["rtt_s"]}

    wait_until(lambda: ("east", "north") in measured())
    out = tmp_path / "drrt.graphml"
    assert shared.daitn("topology", "export", "-o", str(out)).returncode == 0
    root = ElementTree.parse(out).getroot()
    assert root.tag.endswith("graphml")
    relevant = shared.json("topology", "show", "--intent", str(write_intent(tmp_path)))
    assert {option["site"] for option in relevant["options"]} == {"east", "north", "west"}
    analysis = shared.json("topology", "analyze")
    assert not analysis["shape"]["is_simple_cycle"]
    assert analysis["shape"]["cyclomatic_number"] > analysis["cycle"]["cyclomatic_number"]


def test_a_real_network_is_analysed_too(shared: Network) -> None:
    analysis = shared.json("topology", "analyze", "--real", "topozoo/Abilene")
    assert analysis["shape"]["cyclomatic_number"] > 1


def test_a_data_set_is_described_as_croissant(shared: Network) -> None:
    ended = shared.daitn("describe", "dataset", "east/biopsies", "--croissant")
    document = json.loads(ended.stdout)
    assert document["conformsTo"].startswith("http://mlcommons.org/croissant/")


def test_weights_that_an_owner_brings_go_on_learning(shared: Network, tmp_path: Path) -> None:
    pinned = [{"site": "east", "examples": 500}]
    first = write_intent(tmp_path, name="first", route=pinned)
    out = tmp_path / "first-model"
    shared.daitn("train", "-f", str(first), "--watch", "--insist", "-o", str(out))
    parts = tmp_path / "parts"
    parts.mkdir()
    for part in ("weights.safetensors", "features.json"):
        (parts / part).write_bytes((out / part).read_bytes())
    model = {
        "recipe": "classifier",
        "config": {"classes": ["benign", "malignant"], "hidden": [32]},
        "start": "parts",
    }
    second = write_intent(
        tmp_path, name="second", model=model, route=[{"site": "west", "examples": 500}]
    )
    ended = shared.daitn("train", "-f", str(second), "--watch", "--insist", "--json")
    job = json.loads(ended.stdout)
    earlier = shared.json("describe", "job", "first-1")
    assert job["untrained"]["tumours"] == earlier["objectives"][0]["reached"]
    assert [visit["site"] for visit in job["route"]] == ["west"]
    elsewhere = write_intent(
        tmp_path, name="third", model=model, route=[{"site": "north", "examples": 500}]
    )
    refused = shared.daitn("train", "-f", str(elsewhere), "--dry-run")
    assert refused.returncode == 3
    assert "start from their owner's weights" in refused.stdout
