"""A control centre stands by, and takes over from one that is lost, stands still or is cut off."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from daitn.center.jobs import JobService
from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.objects.accounts import LedgerQuestion, chained
from daitn.objects.audit import START
from daitn.tools.journal.sql import SqlJournal
from tests.scenes.breast_cancer import write_intent
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


class Steered(Pair):
    """With a forwarder."""

    def _nodes(self, plain: dict[str, Any]) -> None:
        plain["nodes"].append(Mesh().node("relay", {}))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair"), Steered) as made:
        yield made


def visits(two: Pair, job: str) -> list[str]:
    view = two.json("describe", "job", job)
    return [visit["site"] for visit in view["route"]] if view else []


def test_all_goes_on_through_the_loss_the_standstill_and_the_cut_of_whoever_leads(
    two: Pair, tmp_path: Path
) -> None:
    assert two.centers() == {"a": True, "b": False}
    assert two.json("steer", "hierarchical", "--prefer", "latency=5")
    intent = write_intent(tmp_path, route=ROUTE, objectives=NEVER, budget={"duration_s": 3600})
    asked = two.daitn("train", "-f", str(intent), "--insist", "--json")
    assert asked.returncode == 0, asked.stderr
    job = json.loads(asked.stdout)["job"]
    wait_until(lambda: visits(two, job))

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


def test_a_backup_made_while_jobs_are_submitted_has_all_of_one_moment(
    two: Pair, tmp_path: Path
) -> None:
    """And makes a control centre that is alone, with SQLite."""

    def submitted(number: int) -> str:
        intent = write_intent(tmp_path, name=f"load{number}", route=ROUTE[:1], objectives=NEVER)
        ended = two.daitn("train", "-f", str(intent), "--insist", "--json")
        assert ended.returncode == 0, ended.stderr
        job: str = json.loads(ended.stdout)["job"]
        return job

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
        assert known - before <= meanwhile | {"tumour-1"}
        digest = START
        for line in journal.ledger(LedgerQuestion()):
            digest = chained(digest, line.entry)
            assert line.digest == digest
