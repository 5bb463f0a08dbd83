"""The job service: what it hears of work under way, and what it makes of silence."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from daitn.center import jobs as jobs_module
from daitn.center.jobs import JobService
from daitn.control.jobs.commands import Command, StartWork, StopWork
from daitn.control.jobs.job import Job
from daitn.objects.decisions import Route
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import Assessed, JobView, Planned, Submitted
from daitn.objects.messages import WorkState, WorkStatus
from daitn.tools.journal.memory import MemoryJournal
from tests.control.jobs.world import DECISION, INTENT, NEEDS, assessment, stop
from tests.scenes.waiting import until

RUNNING = WorkStatus(state=WorkState.RUNNING)
QA = JobId("qa-1")


class Scene:
    """A service whose commands are kept and whose views are heard."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.commands: list[Command] = []
        self.shown: list[JobView] = []
        self.service = JobService(self.journal, self.act, self.shown.append)

    async def act(self, job: Job, command: Command) -> None:
        self.commands.append(command)

    def submit(self, name: str = QA) -> StartWork:
        """A job under way to its first visit."""
        job = JobId(name)
        self.service.submit(Submitted(job=job, intent=INTENT, needs=NEEDS))
        self.service.feed(job, Assessed(assessment(True)))
        route = Route(start=None, visits=(stop("netco"),), reaches=True)
        self.service.feed(job, Planned(route=route, decision=DECISION))
        (outstanding,) = self.service.get(job).outstanding.values()
        return StartWork(outstanding.site, outstanding.work)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    made.service.start()
    yield made
    await made.service.close()


async def test_a_job_that_waits_its_turn_at_a_site_says_so(scene: Scene) -> None:
    work = scene.submit()
    assert scene.service.view(QA).detail == "making the fresh model at netco"
    scene.service.told(QA, work.work.visit, WorkStatus(state=WorkState.RUNNING, ahead=1))
    assert scene.service.view(QA).detail == "queued (2nd at netco)"
    assert (scene.shown[-1].detail, scene.shown[-1].queued) == (
        "queued (2nd at netco)",
        "2nd at netco",
    )
    scene.service.told(QA, work.work.visit, RUNNING)
    assert scene.shown[-1].detail == "making the fresh model at netco"
    before = len(scene.shown)
    scene.service.told(QA, work.work.visit, RUNNING)
    assert len(scene.shown) == before


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        (RUNNING, True),
        (WorkStatus(state=WorkState.RUNNING, ahead=1), False),
        (WorkStatus(state=WorkState.DONE), True),
    ],
)
async def test_a_site_that_does_not_get_on_is_told_to_stop_and_has_failed(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: WorkStatus,
    ends: bool,
) -> None:
    monkeypatch.setattr(jobs_module, "HAND_IN_AGAIN_S", 0.05)
    monkeypatch.setattr(jobs_module, "SILENT_AT_MOST_S", 0.2)
    monkeypatch.setattr(jobs_module, "UNREPORTED_AT_MOST_S", 0.2)
    work = scene.submit()
    scene.service.told(QA, work.work.visit, status)
    handed_in = len(scene.commands)
    if ends:
        await until(lambda: scene.service.get(QA).strikes)
        await until(lambda: StopWork(SiteId("netco"), work.work.visit) in scene.commands)
        assert "netco has not got on with" in caplog.text
        assert scene.service.get(QA).strikes == {"netco": 1}
    else:
        await until(lambda: len(scene.commands) > handed_in + 8)
        assert not scene.service.get(QA).strikes
