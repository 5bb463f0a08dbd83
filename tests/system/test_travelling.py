"""Models that find their own way: no control centre, links between neighbours only."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.cli.session import connect
from daitn.objects.identifiers import JobId
from daitn.objects.requests import JobList, JobQuery
from daitn.objects.wire import to_json
from tests.scenes.breast_cancer import HOSPITALS, write_intent, write_network
from tests.scenes.forwarders import Mesh
from tests.scenes.waiting import wait_until

from .conftest import Network, running
from .test_dynamics import SLOW_MODEL

pytestmark = pytest.mark.processes

OFFERS = {
    *((hospital, "data:oncology/breast") for hospital in HOSPITALS),
    ("mpvu", "verify:oncology/breast"),
}
HOUR_USD = 36.0
"""What an hour of training costs everywhere."""


def written(folder: Path) -> tuple[Path, Mesh]:
    """home - hub, and east, north, west and the verifier behind the hub."""
    mesh = Mesh()
    path = write_network(folder, hour_usd=HOUR_USD)
    plain = yaml.safe_load(path.read_text())
    hub = {"hub": mesh.port("hub")}
    nodes = [mesh.node(node["site"], hub, entry=node, mode="standalone") for node in plain["nodes"]]
    nodes.append(mesh.node("home", hub, mode="standalone"))
    others = [node["site"] for node in nodes]
    nodes.append(mesh.node("hub", {}, *others, mode="standalone"))
    plain["nodes"] = nodes
    path.write_text(yaml.safe_dump(plain))
    return path, mesh


class Travels:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path, self.mesh = written(folder)
        self.network: Network = running(folder, path)
        self._seeds = itertools.count(1000, 1000)
        """One for each job that loses weights. Jobs with one seed that take one way make the same
        weights, and a job would find its lost ones where an earlier job left them. Each piece of
        work adds 1 to its job's seed, so that the next job's has to be far off."""

    def heard_of(self) -> set[tuple[str, str]]:
        """Who offers what, as home knows it."""
        ended = self.network.daitn("steer", "--site", "home", "--json")
        origins = [] if ended.returncode else json.loads(ended.stdout)["origins"]
        return {(one["origin"], offer) for one in origins for offer in one["offers"]}

    def train(self, *arguments: str, **changes: Any) -> Any:
        intent = write_intent(self.folder, **changes)
        return self.network.json(
            "train", "-f", str(intent), "--autonomous", "--site", "home", *arguments
        )

    def shown(self, job: str) -> Any:
        """The job as its home knows it, asked without waiting for its end."""
        return asyncio.run(self._shown(JobId(job)))

    def unmeasured(self) -> tuple[str, str]:
        """A job whose model waits at a site for somebody who measures it, as the verifier died;
        and that site. It never reaches its target."""
        never = [{"name": "tumours", "topic": "oncology/breast", "at_least": 0.995}]
        job: str = self.train(
            objectives=never,
            model={**SLOW_MODEL, "seed": next(self._seeds)},
            budget={"duration_s": 3600},
        )["job"]
        self._lose_verifier(job)
        before = self._sought_in_vain(job)
        at = wait_until(lambda: self._seeks_in_vain(job, before))
        assert at != "home", "it was lost with the verifier"
        wait_until(lambda: self._waits(job))
        return job, at

    def _lose_verifier(self, job: str) -> None:
        """Kill the verifier while the job's model is elsewhere, and delete what it stored."""
        state = self.folder / "state" / "mpvu"
        model = state / "agents" / f"{job}.msgpack"
        while True:
            wait_until(lambda: self._learns(job))
            self.network.processes.kill("mpvu")
            if not model.exists():
                break
            # It arrived there after home said where it was.
            self.network.processes.launch("mpvu")
            wait_until(lambda: not model.exists())
        for kept in ("agents", "models", "work"):
            shutil.rmtree(state / kept)

    def _learns(self, job: str) -> bool:
        """Whether it is at a site where it learns, for some time yet, and was measured before."""
        shown = self.shown(job)
        return shown["state"] == "visiting" and bool(shown["route"])

    def _waits(self, job: str) -> bool:
        """Whether home knows that its model waits to be measured: then the route there lacks only
        the last visit. While a verifier works on it, the route may lack more by now."""
        shown = self.shown(job)
        return shown["state"] == "verifying" and not shown["working"]

    def _seeks_in_vain(self, job: str, before: dict[str, int]) -> str | None:
        """The site where the job's model has found no verifier since."""
        found = self._sought_in_vain(job).items()
        return next((site for site, times in found if times > before.get(site, 0)), None)

    def _sought_in_vain(self, job: str) -> dict[str, int]:
        """How often the job's model found no verifier, by the site where it was."""
        line = f"{job} finds no verify:"
        logs = (self.network.folder / "logs").glob("*.log")
        return {log.stem: log.read_text(errors="replace").count(line) for log in logs}

    async def _shown(self, job: JobId) -> Any:
        async with connect(self.network.processes.endpoint, "home") as session:
            found = await session.ask("jobs", JobQuery(job=job), JobList)
        return json.loads(to_json(found.jobs[0]))


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Travels]:
    built = Travels(tmp_path_factory.mktemp("travels"))
    yield built
    built.network.processes.stop()


@pytest.fixture
def travels(breakable: Travels) -> Travels:
    """Whole, and home has heard of all: a test may break it."""
    breakable.network.mend()
    wait_until(lambda: breakable.heard_of() >= OFFERS)
    return breakable


def test_a_model_finds_data_is_measured_and_comes_home(travels: Travels) -> None:
    out = travels.folder / "model"
    job = travels.train("--watch", "-o", str(out))
    assert job["state"] == "reached"
    assert {visit["site"] for visit in job["route"]} <= {"east", "north", "west"}
    assert job["objectives"][0]["verifier"] == "mpvu"
    assert job["model"]["holders"][0] == "home"
    assert (out / "lineage.json").exists()
    listed = travels.network.json("get", "jobs", "--site", "home")
    assert [one["state"] for one in listed if one["job"] == job["job"]] == ["reached"]
    why = travels.network.json("explain", job["job"], "--site", "home")
    assert why["decision"]["policy"] == "mtrce"
    check_accounts(travels.network, job)


def check_accounts(network: Network, job: Any) -> None:
    """Home reported it: what it used is in the control centre's ledger, and what that costs."""

    def visits() -> list[Any]:
        accounts = network.json("account", "list")["accounts"]
        if f"owner/{job['owner']}" not in {one["account"] for one in accounts}:
            return []  # There is none before the first entry.
        found = network.json("account", "statement", job["owner"])["lines"]
        of_job = [line["entry"] for line in found if line["entry"]["job"] == job["job"]]
        return [entry for entry in of_job if entry["kind"] == "visit"]

    wait_until(lambda: len(visits()) == len(job["route"]))
    for entry, made in zip(visits(), job["route"], strict=True):
        usd = HOUR_USD * made["seconds"] / 3600
        gained = {one["account"]: one["micro_usd"] for one in entry["postings"]}
        assert gained[f"site/{made['site']}"] == pytest.approx(1e6 * usd, abs=1)
        assert entry["quantities"]["examples"] == made["work"]
    assert network.json("account", "check")["problems"] == []


def test_a_model_that_is_lost_with_its_site_sets_out_anew(travels: Travels) -> None:
    """It never reaches its target, so that it is somewhere whenever a site dies."""
    job, at = travels.unmeasured()
    for site in ("east", "north", "west"):
        travels.network.processes.kill(site)
        travels.network.processes.launch(site)
    assert at in {"east", "north", "west"}
    travels.network.processes.launch("mpvu")
    before = len(travels.shown(job)["route"])
    wait_until(lambda: len(travels.shown(job)["route"]) > before)
    cancelled = travels.network.json("cancel", job, "--site", "home")
    # Where nothing is left to learn, it ends by itself.
    assert cancelled["state"] in ("cancelled", "exhausted")


def test_weights_that_are_lost_before_they_were_measured_are_given_up(travels: Travels) -> None:
    """The site that made them is the only one that has them, and dies for good."""
    job, at = travels.unmeasured()
    before = len(travels.shown(job)["route"])
    travels.network.processes.kill(at)
    travels.network.processes.launch("mpvu")
    later = wait_until(lambda: travels.shown(job)["route"][before:])
    assert at not in {visit["site"] for visit in later}
    travels.network.daitn("cancel", job, "--site", "home")


def test_several_models_walk_and_are_averaged_where_they_meet(travels: Travels) -> None:
    """Under the owner's signed order, in a network with a roster: sites check each merge."""
    out = travels.folder / "gossip"
    never = [{"name": "tumours", "topic": "oncology/breast", "at_least": 0.999}]
    intent = write_intent(
        travels.folder,
        name="gossip",
        objectives=never,
        budget={"duration_s": 3600, "examples": 3000},
        training={"algorithm": "gossip", "walkers": 2},
    )
    asked = ["train", "-f", str(intent), "--autonomous", "--site", "home", "-o", str(out)]
    ended = travels.network.daitn(*asked, "--json")
    assert ended.returncode == 1, ended.stderr
    job = json.loads(ended.stdout)
    assert job["state"] == "exhausted"
    assert job["algorithm"] == "gossip"
    assert 1500 < job["examples"] <= 3000, "both had their part"
    assert job["examples"] == sum(visit["work"] for visit in job["route"])
    assert "gossip" in {visit["algorithm"] for visit in job["route"]}, "they met"
    entries = json.loads((out / "lineage.json").read_text())["entries"]
    merges = [one for one in entries if one["fact"]["type"] == "merge"]
    for merge in merges:
        assert len(merge["previous"]) == 2
        assert merge["fact"]["site"] in HOSPITALS, "none in the middle"
    listed = travels.network.json("get", "jobs", "--site", "home")
    assert [one["state"] for one in listed if one["job"] == job["job"]] == ["exhausted"]
    why = travels.network.json("explain", job["job"], "--site", "home")
    assert why["decision"]["policy"] == "mtrce"


@pytest.mark.long
def test_a_site_that_dies_ends_no_job_of_several_models(travels: Travels) -> None:
    never = [{"name": "tumours", "topic": "oncology/breast", "at_least": 0.999}]
    job = travels.train(
        name="gossip",
        objectives=never,
        model=SLOW_MODEL,
        budget={"duration_s": 3600, "examples": 3000},
        training={"algorithm": "gossip", "walkers": 2},
    )["job"]
    wait_until(lambda: {*travels.shown(job)["working"]} & {*HOSPITALS})
    at = min({*travels.shown(job)["working"]} & {*HOSPITALS}, default="east")
    travels.network.processes.kill(at)
    before = len(travels.shown(job)["route"])
    wait_until(lambda: len(travels.shown(job)["route"]) > before)
    assert travels.shown(job)["state"] not in ("failed", "cancelled")
    cancelled = travels.network.json("cancel", job, "--site", "home")
    # Where nothing is left to spend, it ends by itself.
    assert cancelled["state"] in ("cancelled", "exhausted")


def test_what_cannot_be_done_is_told_at_home(travels: Travels) -> None:
    intent = write_intent(
        travels.folder,
        name="heart",
        objectives=[{"name": "hearts", "topic": "cardiology", "at_least": 0.9}],
    )
    ended = travels.network.daitn(
        "train", "-f", str(intent), "--autonomous", "--site", "home", "--json"
    )
    assert ended.returncode == 3
    shown = json.loads(ended.stdout)
    assert shown["state"] == "infeasible"
    assert "hearts" in shown["detail"]
    fast = {"quantity": "speed_flops", "at_least": 1e30}
    choosy = write_intent(travels.folder, name="choosy", requirements=[fast])
    asked = ["train", "-f", str(choosy), "--autonomous", "--site", "home", "--dry-run", "--json"]
    # What only a site's descriptor says is known as soon as home has received that.
    wait_until(lambda: "speed_flops" in travels.network.daitn(*asked).stdout)
    gossip = write_intent(
        travels.folder, name="gossip", training={"algorithm": "gossip", "walkers": 2}
    )
    central = travels.network.daitn("train", "-f", str(gossip))
    assert central.returncode == 2
    assert "--autonomous" in central.stderr
    without = travels.network.daitn("train", "-f", str(intent), "--autonomous")
    assert without.returncode == 2
    assert "--site" in without.stderr
