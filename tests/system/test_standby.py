"""A control centre stands by, and takes over from one that is lost, stands still or is cut off."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from daitn.center.jobs import JobService
from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.objects.accounts import LedgerQuestion, chained
from daitn.objects.audit import START
from daitn.tools.journal.sql import SqlJournal
from tests.scenes.breast_cancer import write_intent
from tests.scenes.clinic import facility, gateway
from tests.scenes.command_line import daitn
from tests.scenes.forwarders import Mesh
from tests.scenes.standby import Pair, pair
from tests.scenes.waiting import wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.alone,  # A leader that gets no processor for 4 s leads no more, as it should.
    pytest.mark.timeout(900),
]

NEVER = [{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}]
ROUTE = [{"site": site, "examples": 100} for site in ("east", "north", "west") * 8]
"""So long that the job runs through all of it."""


DEPLOYED = "reader"
ASK_EVERY_S = 0.1


class Whole(Pair):
    """With a forwarder, two facilities and a gateway."""

    def _nodes(self, plain: dict[str, Any]) -> None:
        gate = gateway("gate")
        plain["nodes"] += [Mesh().node("relay", {}), facility("hall"), facility("ward"), gate]
        url = f"http://{gate['gateway']['listen']}/v1"
        self._client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        with (self._folder / "test.csv").open() as file:
            record = next(csv.DictReader(file))
        del record["label"]
        content = json.dumps({column: float(value) for column, value in record.items()})
        self._question: Any = [{"role": "user", "content": content}]

    def submit(self, folder: Path, **changes: Any) -> str:
        """An owner's job, of so many visits as its route has."""
        intent = write_intent(folder, objectives=NEVER, budget={"duration_s": 3600}, **changes)
        ended = self.daitn("train", "-f", str(intent), "--insist", "--json")
        assert ended.returncode == 0, ended.stderr
        job: str = json.loads(ended.stdout)["job"]
        return job

    def deploy(self, model: str, replicas: int) -> set[str]:
        """Deploy a model; returns where it is once it is ready."""
        options = ("--as", DEPLOYED, "--replicas", str(replicas), "--wait")
        view = self.json("deploy", model, *options)
        assert view
        return {place["site"] for place in view["places"]}

    def places(self) -> dict[str, str]:
        """Facility to state, as the leader sees the deployment."""
        listed = (self.json("get", "models") or {"deployed": []})["deployed"]
        return {m["site"]: m["state"] for m in listed if m["name"] == DEPLOYED and m["available"]}

    def ask(self) -> str:
        """Ask what is deployed; returns the facility that answered. Raises `openai.APIError`."""
        answer = self._client.chat.completions.with_raw_response.create(
            model=DEPLOYED, messages=self._question
        )
        return answer.headers["daitn-facility"]

    @contextmanager
    def answered(self) -> Iterator[None]:
        """What is deployed answers all the time."""
        failures: list[openai.APIError] = []
        ended = threading.Event()

        def ask_on() -> None:
            while not ended.wait(ASK_EVERY_S):
                try:
                    self.ask()
                except openai.APIError as error:
                    failures.append(error)

        asking = threading.Thread(target=ask_on)
        asking.start()
        try:
            yield
        finally:
            ended.set()
            asking.join()
        assert not failures


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with pair(tmp_path_factory.mktemp("pair"), Whole) as made:
        yield made


@pytest.fixture(scope="module")
def model(two: Whole, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained model, deployed at one of the facilities; whoever leads knows that."""
    folder = tmp_path_factory.mktemp("model")
    job = two.submit(folder, name="reader", route=ROUTE[:1])
    two.daitn("watch", job)
    two.deploy(job, 1)
    wait_until(lambda: answering(two))  # The gateway hears of it by itself.
    return job


def answering(two: Whole) -> str:
    """Which facility answers; empty: none does."""
    try:
        return two.ask()
    except openai.APIError:
        return ""


def visits(two: Pair, job: str) -> list[str]:
    view = two.json("describe", "job", job)
    return [visit["site"] for visit in view["route"]] if view else []


def test_all_goes_on_through_the_loss_the_standstill_and_the_cut_of_whoever_leads(
    two: Whole, model: str, tmp_path: Path
) -> None:
    assert two.centers() == {"a": True, "b": False}
    assert two.json("steer", "hierarchical", "--prefer", "latency=5")
    job = two.submit(tmp_path, route=ROUTE)
    wait_until(lambda: visits(two, job))
    with two.answered():
        taken_over_three_times(two, job)
    ended = two.daitn("watch", job, "--json")
    view = json.loads(ended.stdout)
    assert [visit["site"] for visit in view["route"]] == [stop["site"] for stop in ROUTE]
    assert two.json("account", "check")["problems"] == []
    told = two.json("steer", "--site", "relay")
    assert (told["mode"], told["prefer"]) == ("hierarchical", {"latency": 5.0})
    assert two.json("steer", "hierarchical", "--prefer", "latency=7")
    wait_until(lambda: two.json("steer", "--site", "relay")["prefer"] == {"latency": 7.0})
    for name in "ab":
        assert "Traceback" not in two.log(name)


def taken_over_three_times(two: Whole, job: str) -> None:
    """From `a`, which leads, to `b`, back, and to `b` again; the job goes on."""
    two.kill("a")
    wait_until(lambda: two.leader() == "b")
    two.launch("a")
    wait_until(lambda: two.centers() == {"a": False, "b": True})
    seen = len(visits(two, job))
    wait_until(lambda: len(visits(two, job)) > seen)

    two.pause("b")
    wait_until(lambda: two.leader() == "a")
    two.go_on("b")
    wait_until(lambda: two.centers() == {"a": True, "b": False})

    two.relay.silent = True
    wait_until(lambda: two.leader() == "b")
    two.relay.mend()
    wait_until(lambda: two.centers() == {"a": False, "b": True})


def test_a_facility_that_is_lost_with_the_leader_is_replaced_by_the_next_one(
    two: Whole, model: str
) -> None:
    """Which has seen neither it nor the start of what was deployed, and leads that to its end."""
    (home,) = two.places()
    lost = two.leader()
    two.kill(lost)
    two.network.kill(home)
    wait_until(lambda: answering(two) not in ("", home))
    two.launch(lost)
    two.network.launch(home)
    wait_until(lambda: len(two.centers()) == 2)
    wait_until(lambda: home in two.alive())
    assert two.deploy(model, 2) == {"hall", "ward"}
    with two.answered():
        assert two.daitn("drain", home, "--timeout", "120").returncode == 0
    wait_until(lambda: two.places().keys() == {"hall", "ward"} - {home})
    assert two.daitn("retire", DEPLOYED).returncode == 0
    wait_until(lambda: not two.places())


def test_a_backup_made_while_jobs_are_submitted_has_all_of_one_moment(
    two: Whole, model: str, tmp_path: Path
) -> None:
    """And makes a control centre that is alone, with SQLite."""

    def submitted(number: int) -> str:
        return two.submit(tmp_path, name=f"load{number}", route=ROUTE[:1])

    before = {submitted(0), submitted(1)}
    backup = tmp_path / "backup"
    file = str(two.files[two.leader()])
    command = [sys.executable, "-m", "daitn.cli.app", "backup", str(backup), "-c", file]
    made = subprocess.Popen(command)
    meanwhile = {submitted(2)}
    while made.poll() is None:
        meanwhile.add(submitted(2 + len(meanwhile)))
    assert made.returncode == 0
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump({"listen": ["tcp/127.0.0.1:0"], "state": "alone"}))
    restored = daitn("restore", str(backup), "-c", str(alone))
    assert restored.returncode == 0, restored.stderr

    async def act(job: Job, command: Command) -> None:
        """Nothing is done: the control centre is elsewhere."""

    async def read(journal: SqlJournal) -> set[str]:
        jobs = JobService(journal, act, lambda shown: None)
        jobs.start()
        await jobs.close()
        return {*jobs.before(None)}

    with closing(SqlJournal(f"sqlite:///{tmp_path / 'alone' / 'jobs.db'}")) as journal:
        known = asyncio.run(read(journal))
        assert known == set(journal.jobs()), "each can be read"
        assert before <= known
        assert known - before <= meanwhile | {"tumour-1", model}
        digest = START
        for line in journal.ledger(LedgerQuestion()):
            digest = chained(digest, line.entry)
            assert line.digest == digest
