"""Sites and the control centre die while jobs run: no job and no model is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from daitn.node.audit import entries
from daitn.objects.lineage import Lineage, Merge
from daitn.objects.wire import checked
from tests.scenes.breast_cancer import HOSPITALS, write_intent, write_network
from tests.scenes.held_training import HeldTraining
from tests.scenes.waiting import PATIENCE_S, wait_until
from tests.scenes.workers import workers_of

from .conftest import Network, running

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SLOW_MODEL = {
    "recipe": "classifier",
    "config": {"classes": ["benign", "malignant"], "hidden": [1024, 1024], "batch": 1},
}
"""Takes long enough at a site to be interrupted there."""


OUT_OF_REACH = [{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldTraining]:
    held = HeldTraining(tmp_path_factory.mktemp("held") / "hook")
    with held.taken_over():
        yield held


@pytest.fixture(scope="module")
def breakable(held: HeldTraining, breakable: Network) -> Network:
    """Its training can be held up."""
    return breakable


def job_of(network: Network, name: str) -> Any:
    return network.json("describe", "job", f"{name}-1")


def wait_for(network: Network, name: str, condition: Callable[[Any], bool]) -> Any:
    """Look at a job until it meets a condition."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        job = job_of(network, name)
        if condition(job):
            return job
        if job["ended_at_s"] is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"it never came to that: {json.dumps(job, indent=1)[:3000]}")


def wait_for_center(network: Network) -> None:
    wait_until(lambda: network.daitn("get", "jobs").returncode == 0)


def training(site: str) -> Callable[[Any], bool]:
    return lambda job: job["state"] == "visiting" and site in job["working"]


def submit(network: Network, folder: Path, **changes: Any) -> None:
    intent = write_intent(folder, **{"objectives": OUT_OF_REACH, **changes})
    ended = network.daitn("train", "-f", str(intent), "--insist")
    assert ended.returncode == 0, ended.stderr


def check_books(network: Network, job: Any) -> None:
    """Each visit is in the ledger, once, at its price, whoever died meanwhile; all of it holds."""
    lines = network.json("account", "statement", job["owner"])["lines"]
    of_job = [line["entry"] for line in lines if line["entry"]["job"] == job["job"]]
    posted = [
        (one["account"].partition("/")[2], entry["quantities"]["examples"], one["micro_usd"])
        for entry in of_job
        for one in entry["postings"]
        if entry["kind"] == "visit" and one["account"].startswith("site/")
    ]
    assert posted == [
        (visit["site"], visit["work"], pytest.approx(1e6 * visit["cost_usd"], abs=1))
        for visit in job["route"]
    ]
    assert all(usd > 0 for _, _, usd in posted)
    assert network.json("account", "check")["problems"] == []


def test_the_site_that_trains_goes_on_after_its_death(
    own: Network, held: HeldTraining, tmp_path: Path
) -> None:
    route = [
        {"site": "west", "examples": 100},
        {"site": "east", "examples": 800},
        {"site": "north", "examples": 100},
    ]
    state = own.folder / "state" / "east"
    with held.frozen_at_savepoint("east"):
        submit(own, tmp_path, name="death", model=SLOW_MODEL, route=route, budget={})
        held.wait_until_frozen("east")
        assert any((state / "visits" / "begun").glob("*.msgpack"))
        own.processes.kill("east")
    waiting = wait_for(own, "death", lambda job: job["state"] == "waiting")
    assert "east" in waiting["detail"]
    assert [visit["site"] for visit in waiting["route"]] == ["west"]
    own.processes.launch("east")
    ended = wait_for(own, "death", lambda job: job["state"] in ("reached", "exhausted", "failed"))
    assert ended["state"] != "failed"
    assert [visit["site"] for visit in ended["route"]][:2] == ["west", "east"]
    events = [(e.event, e.visit) for e in entries(state / "audit") if e.job == "death-1"]
    assert [event for event, _ in events] == ["begun", "resumed", "visited"]
    assert len({visit for _, visit in events}) == 1
    assert not any(path.is_file() for path in (state / "visits").rglob("*"))
    check_books(own, ended)


def test_another_site_goes_on_from_the_last_verified_model(
    own: Network, held: HeldTraining, tmp_path: Path
) -> None:
    with held.at(*HOSPITALS):
        submit(own, tmp_path, name="another", model=SLOW_MODEL, budget={"examples": 2500})
        held.let(held.first())
        first = wait_for(own, "another", lambda job: len(job["route"]) == 1)
        verified = first["route"][0]
        victim = held.first()
        visiting = wait_for(own, "another", training(victim))
        assert visiting["working"] == [victim]
        own.processes.kill(victim)
    count = len(visiting["route"])
    after = wait_for(own, "another", lambda job: len(job["route"]) > count)
    assert after["route"][0] == verified
    assert after["route"][count]["site"] != victim
    own.daitn("cancel", "another-1")


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network whose sites give training up that does not get on for three seconds, and to which
    nobody can connect."""
    folder = tmp_path_factory.mktemp("impatient")
    path = write_network(folder)
    plain = yaml.safe_load(path.read_text())
    plain["defaults"] |= {"stall_s": 3.0, "listen": []}
    path.write_text(yaml.safe_dump(plain))
    network = running(folder, path)
    yield network
    network.processes.stop()


def test_training_that_hangs_is_noticed_told_and_tried_anew(
    impatient: Network, tmp_path: Path
) -> None:
    route = [{"site": "west", "examples": 100}, {"site": "east", "examples": 800}]
    submit(impatient, tmp_path, name="hangs", model=SLOW_MODEL, route=route, budget={})
    wait_for(impatient, "hangs", training("east"))
    stop_worker(impatient.processes.pid("east")).wait(PATIENCE_S)
    ended = wait_for(impatient, "hangs", lambda job: job["ended_at_s"] is not None)
    assert [visit["site"] for visit in ended["route"]] == ["west", "east"]
    logs = impatient.folder / "logs"
    told = {name: (logs / f"{name}.log").read_text() for name in ("east", "center")}
    assert "made no progress and used no processor" in told["east"]
    assert "east did not finish hangs-1" in told["center"]


WITH_VISIT = 3
"""A worker, who starts it in namespaces of its own, and the process of a visit."""


def stop_worker(node: int) -> psutil.Process:
    """Stop the process that trains at a site, as a debugger or an operator would."""

    def stopped() -> psutil.Process | None:
        """That of the training; what looks at data for the visit is another."""
        trains = workers_of(node, "worker", without="--no-engine")
        if len(trains) != WITH_VISIT:
            return None
        try:
            trains[-1].suspend()
        except psutil.NoSuchProcess:  # The visit ended since it was seen; the next one comes.
            return None
        return trains[-1]

    return wait_until(stopped)


def test_sites_that_nobody_can_connect_to_train_through_the_control_centre(
    impatient: Network, tmp_path: Path
) -> None:
    route = [{"site": "west", "examples": 100}, {"site": "east", "examples": 100}]
    model = {"recipe": "classifier", "config": {"classes": ["benign", "malignant"]}}
    submit(impatient, tmp_path, name="relayed", model=model, route=route, budget={})
    ended = wait_for(impatient, "relayed", lambda job: job["ended_at_s"] is not None)
    assert [visit["site"] for visit in ended["route"]] == ["west", "east"]
    assert "the stated route is complete" in ended["detail"]


def test_a_job_survives_the_death_of_the_control_centre(own: Network, tmp_path: Path) -> None:
    route = [{"site": "west", "examples": 100}, {"site": "east", "examples": 800}]
    submit(own, tmp_path, name="centre", model=SLOW_MODEL, route=route, budget={})
    before = wait_for(own, "centre", training("east"))
    own.processes.kill("center")
    ended = own.daitn("get", "jobs")
    assert ended.returncode == 4
    assert "fix" in ended.stderr
    own.processes.launch("center")
    wait_for_center(own)
    ended_job = wait_for(own, "centre", lambda job: job["ended_at_s"] is not None)
    assert [visit["site"] for visit in ended_job["route"]] == ["west", "east"]
    assert ended_job["route"][0] == before["route"][0]
    assert ended_job["submitted_at_s"] == before["submitted_at_s"]
    check_books(own, ended_job)


def test_a_cancelled_job_leaves_its_site_free_and_its_model_kept(
    own: Network, tmp_path: Path
) -> None:
    route = [{"site": "west", "examples": 100}, {"site": "east", "examples": 100_000}]
    submit(own, tmp_path, name="stopped", model=SLOW_MODEL, route=route, budget={})
    wait_for(own, "stopped", training("east"))
    assert own.daitn("cancel", "stopped-1").returncode == 0
    assert job_of(own, "stopped")["state"] == "cancelled"
    again = own.daitn("cancel", "stopped-1")
    assert again.returncode == 3
    assert "already" in again.stderr
    submit(own, tmp_path, name="next", route=[{"site": "east", "examples": 100}])
    wait_for(own, "next", lambda job: len(job["route"]) == 1)
    exported = own.daitn("model", "export", "stopped-1", "-o", str(tmp_path / "model"))
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "model" / "weights.safetensors").exists()


def test_a_job_goes_on_from_where_it_was_cancelled(
    own: Network, held: HeldTraining, tmp_path: Path
) -> None:
    """In its own order and lineage: also at sites that train nobody's own weights."""
    route = [{"site": "north", "examples": 400}] + [{"site": "east", "examples": 4000}] * 3
    intent = write_intent(tmp_path, name="paused", route=route)
    with held.at("east"):
        job = own.json("train", "-f", str(intent), "--insist")["job"]
        assert "goes on by itself" in own.daitn("resume", job).stderr
        held.first()
        wait_for(own, "paused", training("east"))
        before = own.json("cancel", job)
    assert before["state"] == "cancelled"
    assert [visit["site"] for visit in before["route"]] == ["north"]
    assert own.daitn("resume", job).returncode == 0
    ended = json.loads(own.daitn("watch", job, "--json").stdout)
    assert ended["state"] in ("reached", "exhausted")
    assert ended["route"][:1] == before["route"]
    assert {visit["site"] for visit in ended["route"]} == {"north", "east"}


def test_a_deadline_ends_a_job_with_what_it_has(
    own: Network, held: HeldTraining, tmp_path: Path
) -> None:
    # Short beside the time, since nothing is begun that is not expected to end in time.
    route = [{"site": "west", "examples": 40}, {"site": "east", "examples": 60}]
    duration_s = 60.0
    budget = {"duration_s": duration_s}
    with held.at("east"):
        submit(own, tmp_path, name="late", model=SLOW_MODEL, route=route, budget=budget)
        held.first()
        job = wait_for(own, "late", lambda job: job["ended_at_s"] is not None)
    assert job["state"] == "exhausted"
    assert job["seconds"] >= duration_s
    assert "its time (budget.duration_s) is up" in job["detail"]
    assert job["model"] is not None
    assert [visit["site"] for visit in job["route"]] == ["west"]


def test_a_secure_round_goes_on_without_a_member_that_dies(own: Network, tmp_path: Path) -> None:
    """Each merge is a sum of two hospitals at least, and no hospital's own model leaves it."""
    secure = {"algorithm": "fedavg", "epochs": 3, "secure_aggregation": True}
    submit(own, tmp_path, name="secure", training=secure, budget={})
    kept = own.folder / "state" / "north" / "sums"
    wait_until(lambda: kept.is_dir() and any(kept.iterdir()))
    own.processes.kill("north")
    wait_for(own, "secure", lambda job: any(visit["round"] > 1 for visit in job["route"]))
    out = tmp_path / "model"
    own.json("model", "export", "secure-1", "-o", str(out))
    own.daitn("cancel", "secure-1")
    lineage = checked(json.loads((out / "lineage.json").read_text()), Lineage, "lineage")
    merges = [entry.fact for entry in lineage.entries if isinstance(entry.fact, Merge)]
    assert merges
    assert all(2 <= len(merge.summed) <= 3 for merge in merges)
    models = {model for merge in merges for model in merge.models}
    blobs = own.folder.glob("state/*/models/blobs/*/*")
    kept_there = {blob.parent.name + blob.name for blob in blobs}
    assert models
    assert {merge.model_out for merge in merges} & kept_there
    assert not models & kept_there


def test_a_cordoned_site_is_not_visited_and_a_job_waits_for_it(
    own: Network, tmp_path: Path
) -> None:
    """By its owner or an operator; what it does is in its audit log."""
    assert own.daitn("cordon", "east", "--reason", "new disks").returncode == 0
    intent = write_intent(tmp_path, name="away", route=[{"site": "east", "examples": 100}])
    wait_until(lambda: "new disks" in own.daitn("train", "-f", str(intent), "--dry-run").stdout)
    assert own.daitn("train", "-f", str(intent), "--insist").returncode == 0
    waits = wait_for(own, "away", lambda job: "cordoned" in str(job))
    assert waits["ended_at_s"] is None
    assert own.daitn("uncordon", "east").returncode == 0
    wait_for(own, "away", lambda job: job["ended_at_s"] is not None or job["route"])
    told = [entry.event for entry in entries(own.folder / "state" / "east")]
    assert {"cordoned", "uncordoned"} <= set(told)


def test_a_control_centre_is_lost_with_its_disk_and_restored_from_a_backup(
    own: Network, held: HeldTraining, tmp_path: Path
) -> None:
    """In mid-job, while it works: no job and no model that it had is lost."""
    center = own.folder / "state" / "center"
    intent = write_intent(tmp_path, name="before", route=[{"site": "west", "examples": 100}])
    assert own.daitn("train", "-f", str(intent), "--insist", "--watch").returncode in (0, 1)
    with held.at("east"):
        submit(own, tmp_path, name="during", route=[{"site": "east", "examples": 100}])
        held.first()
        config = str(own.folder / "network.yaml")
        ended = own.daitn("backup", str(tmp_path / "backup"), "-c", config)
        assert ended.returncode == 0, ended.stderr
        before = job_of(own, "before")
        own.processes.kill("center")
    center.rename(tmp_path / "lost")
    assert own.daitn("restore", str(tmp_path / "backup"), "-c", config).returncode == 0
    again = own.daitn("restore", str(tmp_path / "backup"), "-c", config)
    assert (again.returncode, "nothing is overwritten" in again.stderr) == (2, True)
    own.mend()
    assert job_of(own, "before") == before
    assert own.daitn("model", "export", "before-1", "-o", str(tmp_path / "model")).returncode == 0
    during = wait_for(own, "during", lambda job: job["ended_at_s"] is not None)
    assert [visit["site"] for visit in during["route"]] == ["east"]
    for job in (before, during):
        check_books(own, job)
    assert own.daitn("backup", str(tmp_path / "after"), "-c", config).returncode == 0


def test_a_changed_file_is_taken_over_without_a_restart(own: Network) -> None:
    path = own.folder / "network.yaml"
    before = path.read_text()
    plain = yaml.safe_load(before)
    (east,) = [node for node in plain["nodes"] if node["site"] == "east"]
    east["datasets"][0]["policy"]["owners"] = ["nobody"]
    east["threads"] = 2
    path.write_text(yaml.safe_dump(plain))

    def owners() -> Any:
        nodes = own.json("get", "nodes")
        (node,) = [n["descriptor"] for n in nodes if n["descriptor"]["site"] == "east"]
        return node["datasets"][0]["policy"]["owners"]

    try:
        wait_until(lambda: owners() == ["nobody"])
        found = own.daitn("doctor", "-c", str(path), "--site", "east", "--all", "--json")
        told = [f["what"] for f in json.loads(found.stdout) if f["check"] == "reload"]
        assert told == ["changed in its file, and not in force: threads"]
        path.write_text("nodes: [")  # Somebody is still writing it.
        os.kill(own.processes.pid("east"), signal.SIGHUP)
        log = own.folder / "logs" / "east.log"
        wait_until(lambda: "the changed file is not taken" in log.read_text())
        assert owners() == ["nobody"]
    finally:
        path.write_text(before)
    wait_until(lambda: owners() == ["*"])
