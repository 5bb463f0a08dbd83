"""Following a job in a pipe: a line for each change, and one now and then."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from daitn.cli import job_progress as watching
from daitn.cli.job_progress import watch_job
from daitn.cli.session import Session
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import submit
from daitn.control.jobs.view import view
from daitn.objects.identifiers import JobId, SiteId, VisitId
from daitn.objects.jobs import JobState, JobView, Submitted
from daitn.objects.messages import WorkProgress
from daitn.objects.requests import JobList
from daitn.objects.wire import encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from tests.control.jobs.world import INTENT, NEEDS
from tests.scenes.waiting import until

QA = JobId("qa-1")


def job() -> Job:
    return submit(Submitted(job=QA, intent=INTENT, needs=NEEDS), 0.0)[0]


async def test_what_does_not_change_is_told_of_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "REPORTED_EVERY_S", 0.1)
    monkeypatch.setattr(watching, "ASK_AGAIN_S", 0.02)
    network = MemoryNetwork()
    center, owner = network.open("center"), network.open("owner")
    asked = 0
    shown = msgspec.structs.replace(
        view(job(), 0.0), state=JobState.VISITING, detail="training at netco"
    )

    async def jobs(key: str, payload: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return encode(JobList(jobs=(msgspec.structs.replace(shown, seconds=float(asked)),)))

    await center.serve(keys.center_do("jobs"), jobs)
    shown = msgspec.structs.replace(shown, queued="2nd at netco", detail="queued (2nd at netco)")
    lines: list[str] = []

    def heard() -> list[str]:
        lines.extend(capfd.readouterr().err.splitlines())
        return lines

    watched = asyncio.create_task(watch_job(Session(owner), QA, quiet=False))
    await until(lambda: len(heard()) >= 3)
    assert lines[0] == "qa-1 visiting: queued (2nd at netco)"
    seconds = [float(line.split("(")[-1].split()[0]) for line in lines[1:3]]
    assert 0 < seconds[0] < seconds[1]

    shown = msgspec.structs.replace(
        shown, queued="", detail="training at netco", working=(SiteId("netco"),)
    )
    await until(lambda: "qa-1 visiting: training at netco" in heard())
    progress = WorkProgress(
        job=QA, visit=VisitId("qa-1.1"), site=SiteId("netco"), phase="training", done=30, total=90
    )
    await center.publish(keys.site_progress(SiteId("netco"), QA), encode(progress))
    await until(lambda: any("(netco training 30 of 90, " in line for line in heard()))

    shown = msgspec.structs.replace(shown, state=JobState.REACHED, detail="", working=())
    ended: JobView = await watched
    assert ended.state is JobState.REACHED
    assert heard()[-1].startswith("qa-1 reached:")
    await owner.close()
    await center.close()
