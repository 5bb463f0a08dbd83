"""The job service: what it hears of work under way, and what it makes of silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace

import msgspec
import pytest

from daitn.center import jobs as jobs_module
from daitn.center import work_watch
from daitn.center.job_views import JobViews
from daitn.center.jobs import JobService
from daitn.center.stored_events import StoredEvent
from daitn.control.jobs import view as view_module
from daitn.control.jobs.commands import Command, Settle, StartWork, StopWork
from daitn.control.jobs.job import Job
from daitn.identity.keys import SigningKey, check_signature
from daitn.identity.orders import sign_order
from daitn.identity.signing import check_report, sign_entry, sign_report
from daitn.identity.statements import check_statement
from daitn.oam.doctor.diagnoses import Level
from daitn.oam.doctor.network import check_jobs
from daitn.objects.decisions import Route
from daitn.objects.errors import Corrupt, StorageFull, Unreachable
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.intents import Budget, TrainingIntent
from daitn.objects.jobs import (
    Assessed,
    JobEvent,
    JobState,
    JobView,
    Planned,
    Recovered,
    Submitted,
    WorkStalled,
)
from daitn.objects.lineage import Origin, SignedStatement
from daitn.objects.messages import VisitWork, WorkOutcome, WorkReport, WorkState, WorkStatus
from daitn.objects.models import ModelRef
from daitn.objects.requests import JobList, JobQuery
from daitn.objects.wire import canonical, decode, encode
from daitn.tools import clock
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

    def starts(self) -> list[StartWork]:
        return [command for command in self.commands if isinstance(command, StartWork)]

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


async def test_what_sites_sign_for_others_is_kept_with_the_job_over_a_restart(scene: Scene) -> None:
    work = scene.submit().work
    assert isinstance(work, VisitWork)
    key = SigningKey.generate()
    made = msgspec.structs.replace(
        made_by(work.visit), at_s=time.time(), recipe=work.recipe, seed=work.seed
    )
    entry = sign_entry(made, (), key)
    model = ModelRef(manifest=made.model, size_bytes=8, holders=(made.site,))
    outcome = WorkOutcome(
        visit=work.visit, job=QA, site=made.site, state=WorkState.DONE, entry=entry, model=model
    )
    report = sign_report(outcome, key, network="hospitals")
    check_statement(report.statement, entry, "hospitals")
    scene.service.reported(report.outcome, report.statement)
    kept = (SignedStatement(entry=entry.digest, signed=report.statement),)
    assert scene.service.statements(QA) == kept
    again = JobService(scene.journal, scene.act, scene.shown.append)
    again.start()
    assert again.statements(QA) == kept
    await again.close()


def test_a_report_of_an_earlier_version_says_nothing_to_others() -> None:
    outcome = WorkOutcome(visit=VisitId("1"), job=QA, site=SiteId("a"), state=WorkState.CANCELLED)
    report = sign_report(outcome, SigningKey.generate())
    said = msgspec.msgpack.decode(encode(report))
    del said["statement"]
    assert decode(msgspec.msgpack.encode(said), WorkReport) == report


def test_a_report_in_which_a_later_version_says_more_is_taken() -> None:
    key = SigningKey.generate()
    outcome = WorkOutcome(visit=VisitId("1"), job=QA, site=SiteId("a"), state=WorkState.CANCELLED)
    more = msgspec.msgpack.decode(canonical(outcome)) | {"watts": 3.5}
    sent = canonical({"outcome": more, "signature": key.sign(canonical(more))})
    check_report(decode(sent, WorkReport), key.public, sent)
    with pytest.raises(Corrupt):
        check_report(decode(sent, WorkReport), SigningKey.generate().public, sent)
    changed = sent.replace(b"watts", b"wants")
    with pytest.raises(Corrupt):
        check_report(decode(sent, WorkReport), key.public, changed)


def test_a_report_of_an_earlier_version_in_another_order_is_taken() -> None:
    key = SigningKey.generate()
    outcome = WorkOutcome(visit=VisitId("1"), job=QA, site=SiteId("a"), state=WorkState.CANCELLED)
    shuffled = dict(reversed(msgspec.msgpack.decode(canonical(outcome)).items()))
    sent = encode({"outcome": shuffled, "signature": key.sign(canonical(outcome))})
    check_report(decode(sent, WorkReport), key.public, sent)


def test_a_report_reads_the_same_to_a_version_that_knows_no_statements() -> None:
    """Its signature is over what such a version knows, too."""

    class Earlier(msgspec.Struct, frozen=True, kw_only=True):
        outcome: WorkOutcome
        signature: str

    key = SigningKey.generate()
    entry = sign_entry(made_by(VisitId("1")), (), key)
    outcome = WorkOutcome(
        visit=VisitId("1"), job=QA, site=entry.fact.site, state=WorkState.DONE, entry=entry
    )
    read = decode(encode(sign_report(outcome, key, network="hospitals")), Earlier)
    check_signature(key.public, read.signature, canonical(read.outcome))


def made_by(visit: VisitId) -> Origin:
    return Origin(
        job=QA, visit=visit, site=SiteId("netco"), at_s=1.0, recipe="r", seed=0,
        model=Digest("a" * 64),
    )  # fmt: skip


async def test_a_job_that_waits_its_turn_at_a_site_says_so(scene: Scene) -> None:
    work = scene.submit()
    assert scene.service.view(QA).detail == "making the fresh model at netco"
    scene.service.status_received(QA, work.work.visit, WorkStatus(state=WorkState.RUNNING, ahead=1))
    assert scene.service.view(QA).detail == "queued (2nd at netco)"
    assert (scene.shown[-1].detail, scene.shown[-1].queued) == (
        "queued (2nd at netco)",
        "2nd at netco",
    )
    scene.service.status_received(QA, work.work.visit, RUNNING)
    assert scene.shown[-1].detail == "making the fresh model at netco"
    before = len(scene.shown)
    scene.service.status_received(QA, work.work.visit, RUNNING)
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
    monkeypatch.setattr(jobs_module, "RESEND_EVERY_S", 0.05)
    monkeypatch.setattr(work_watch, "SILENT_AT_MOST_S", 0.2)
    monkeypatch.setattr(work_watch, "UNREPORTED_AT_MOST_S", 0.2)
    work = scene.submit()
    scene.service.status_received(QA, work.work.visit, status)
    handed_in = len(scene.commands)
    if ends:
        await until(lambda: scene.service.get(QA).failures)
        await until(lambda: StopWork(SiteId("netco"), work.work.visit) in scene.commands)
        assert "netco made no progress with" in caplog.text
        assert scene.service.get(QA).failures == {"netco": 1}
    else:
        await until(lambda: len(scene.commands) > handed_in + 8)
        assert not scene.service.get(QA).failures


@pytest.mark.parametrize(
    "invented",
    [
        lambda k: WorkStatus(state=WorkState.RUNNING, phase="training", done=k, total=10**9),
        lambda k: WorkStatus(state=WorkState.RUNNING, phase="training", done=k % 2, total=2),
        lambda k: WorkStatus(state=WorkState.RUNNING, phase="fetching", done=k, total=k + 1),
        lambda k: WorkStatus(state=WorkState.RUNNING, phase=f"phase-{k}"),
        lambda k: WorkStatus(state=WorkState.RUNNING, ahead=1 + k % 2),
        lambda k: WorkStatus(state=WorkState.RUNNING, ahead=10**9 - k),
        lambda k: WorkStatus(state=WorkState.DONE, done=k, total=10**9),
    ],
)
def test_progress_that_a_site_invents_is_given_up(invented: Callable[[int], WorkStatus]) -> None:
    watch, visit, minutes = work_watch.WorkWatch(), VisitId("v"), 9 * 24 * 60
    for minute in range(minutes):
        watch.received(visit, invented(minute), 60.0 * minute)
        if watch.stalled(60.0 * minute, {visit: 3600.0}):
            return
    raise AssertionError("it goes on for ever")


def test_work_may_take_many_times_what_was_planned_and_begin_anew() -> None:
    """It fetches two models, trains for three days, and its site is restarted in the middle."""
    watch, visit = work_watch.WorkWatch(), VisitId("v")
    steps = [
        *(WorkStatus(state=WorkState.RUNNING, ahead=2 - k) for k in range(2)),
        *(WorkStatus(state=WorkState.RUNNING, phase="fetching", total=t) for t in (70, 50)),
        *(
            WorkStatus(state=WorkState.RUNNING, phase="training", done=k, total=72)
            for k in range(36)
        ),
        WorkStatus(state=WorkState.RUNNING),
        *(
            WorkStatus(state=WorkState.RUNNING, phase="training", done=k, total=72)
            for k in range(73)
        ),
    ]
    for hour, status in enumerate(steps):
        watch.received(visit, status, 3600.0 * hour)
        assert not watch.stalled(3600.0 * hour + 3500.0, {visit: 36_000.0}), hour
    assert watch.stalled(3600.0 * hour + 5400.0)


def set_back(monkeypatch: pytest.MonkeyPatch, by_s: float = 3600.0) -> None:
    """The wall clock goes back, for all of the process."""
    true_s = time.time
    monkeypatch.setattr(time, "time", lambda: true_s() - by_s)


def brief() -> TrainingIntent:
    return msgspec.structs.replace(INTENT, budget=Budget(duration_s=0.5))


async def test_a_job_ends_at_its_deadline_though_the_clock_is_set_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.service.submit(Submitted(job=QA, intent=brief(), needs=NEEDS))
    set_back(monkeypatch)
    await until(lambda: scene.service.get(QA).state is JobState.EXHAUSTED)
    assert 0.5 <= scene.service.view(QA).seconds < 60


async def test_a_job_ends_at_its_deadline_though_the_clock_was_ahead_in_a_life_before() -> None:
    """What the journal holds is of an hour that is still to come, and of two hours before that."""
    scene = Scene()
    now_s = clock.now_s()
    facts: tuple[tuple[JobEvent, float], ...] = (
        (Submitted(job=QA, intent=brief(), needs=NEEDS), now_s + 7200.0),
        (Assessed(assessment(True)), now_s + 7200.2),
        (Recovered(), now_s + 3600.0),
    )
    for number, (event, at_s) in enumerate(facts):
        stored = encode(StoredEvent(event, at_s))
        scene.journal.append(QA, number, [stored], at_s)
    scene.service.start()
    assert 0.2 <= scene.service.view(QA).seconds < 60
    await until(lambda: scene.service.get(QA).state is JobState.EXHAUSTED)
    await scene.service.close()


async def test_a_tick_looks_at_no_job_that_has_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(jobs_module, "_due", lambda job, now_s: looked.append(job.id))
    for number in range(50):
        scene.service.submit(Submitted(job=JobId(f"old-{number}"), intent=INTENT, needs=NEEDS))
        scene.service.cancel(JobId(f"old-{number}"))
    scene.submit()
    looked.clear()
    await until(lambda: len(looked) > 4)
    assert set(looked) == {QA}
    assert len(list(scene.service.before(None))) == 51


async def test_facts_that_cannot_be_stored_are_told_again_by_one_task(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "STORAGE_RETRY_S", 0.05)
    scene.submit()
    full = StorageFull("the disk is full")

    def refuse(*anything: object) -> int:
        raise full

    append = scene.journal.append
    monkeypatch.setattr(scene.journal, "append", refuse)
    before = len(asyncio.all_tasks())
    for _ in range(30):
        scene.service.lost(SiteId("netco"))
        scene.service.lost(SiteId("elsewhere"))
    assert len(asyncio.all_tasks()) <= before + 1
    scene.service.joined(SiteId("netco"))
    scene.service.lost(SiteId("other"))
    monkeypatch.setattr(scene.journal, "append", append)
    await asyncio.sleep(0.2)
    assert not scene.service.get(QA).losses, "it is back"
    monkeypatch.setattr(scene.journal, "append", refuse)
    scene.service.lost(SiteId("netco"))
    monkeypatch.setattr(scene.journal, "append", append)
    await until(lambda: scene.service.get(QA).losses)
    assert scene.service.get(QA).losses == {"netco": 1}
    scene.service.lost(SiteId("netco"))
    await scene.service.close()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Away:
    """A journal's database is away: nothing is read or written, or it answers no more when it has
    written."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch, *, writes: bool) -> None:
        self._patch, self._journal = monkeypatch, scene.journal
        self._real = {name: getattr(scene.journal, name) for name in ("append", "events")}
        self._writes = writes
        self.calls = 0

    def __enter__(self) -> Away:
        for name in self._real:
            self._patch.setattr(self._journal, name, partial(self._call, name))
        return self

    def __exit__(self, *error: object) -> None:
        for name, real in self._real.items():
            self._patch.setattr(self._journal, name, real)

    def _call(self, name: str, *arguments: object) -> object:
        self.calls += 1
        if name == "append" and self._writes:
            self._real[name](*arguments)
        raise Unreachable("the database is away", fix="start it")


@pytest.mark.parametrize("writes", [False, True])
async def test_a_job_is_as_its_events_on_disk_say_when_its_journal_is_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """Else a route that is not on disk is followed, and the next report is one of no work."""
    scene.service.submit(Submitted(job=QA, intent=INTENT, needs=NEEDS))
    scene.service.feed(QA, Assessed(assessment(True)))
    route = Route(start=None, visits=(stop("netco"),), reaches=True)
    planned = Planned(route=route, decision=DECISION)
    with Away(scene, monkeypatch, writes=writes), pytest.raises(Unreachable):
        scene.service.feed(QA, planned)
    assert not scene.starts()
    scene.service.feed(QA, planned)
    await until(scene.starts)
    again = JobService(scene.journal, scene.act, scene.shown.append)
    again.start()
    assert again.get(QA).outstanding == scene.service.get(QA).outstanding
    assert [start.work for start in scene.starts()] == [
        one.work for one in again.get(QA).outstanding.values()
    ]


async def test_a_job_whose_end_is_on_disk_though_its_journal_said_nothing_is_settled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it left is published, and its outline kept, after the next restart only."""
    given = scene.submit()
    with Away(scene, monkeypatch, writes=True), pytest.raises(Unreachable):
        scene.service.cancel(QA)
    await until(lambda: Settle() in scene.commands)
    assert StopWork(given.site, given.work.visit) in scene.commands, "its site stops, too"
    await until(lambda: scene.journal.all("ended-job"))
    assert scene.service.state(QA) is JobState.CANCELLED


async def test_a_silent_database_is_asked_once_for_all_jobs_and_then_left_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt may hold the event loop for as long as the database is silent."""
    monkeypatch.setattr(jobs_module, "TICK_S", 0.005)
    monkeypatch.setattr(jobs_module, "STORAGE_RETRY_S", 3600.0)
    names = [JobId(f"qa-{number}") for number in range(5)]
    for name in names:
        scene.submit(name)
    with Away(scene, monkeypatch, writes=False) as away:
        for name in names:
            with pytest.raises(Unreachable):
                scene.service.cancel(name)
        await asyncio.sleep(0)
        before = away.calls
        await until(lambda: away.calls > before)
        scene.service.lost(SiteId("netco"))
        await asyncio.sleep(0.1)
        assert away.calls == before + 1
        with pytest.raises(Unreachable):  # Who asks gets an answer.
            scene.submit("qa-9")
        with pytest.raises(Unreachable):  # Nobody knows yet whether it is cancelled.
            scene.service.cancel(names[0])
    assert scene.service.cancel(names[0]).state is JobState.CANCELLED


async def test_a_job_whose_route_is_computed_while_its_journal_is_away_waits_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "STORAGE_RETRY_S", 0.02)
    away = [Unreachable("the database is away", field="database", fix="start it")] * 2

    async def act(job: Job, command: Command) -> None:
        if away:
            raise away.pop()
        scene.commands.append(command)

    service = JobService(scene.journal, act, scene.shown.append)
    service.submit(Submitted(job=QA, intent=INTENT, needs=NEEDS))
    await until(lambda: scene.commands)
    assert service.get(QA).state is JobState.SUBMITTED
    await service.close()


@pytest.mark.parametrize("writes", [False, True])
async def test_a_job_that_may_have_been_accepted_goes_on_and_its_name_is_nobody_else_s(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    with Away(scene, monkeypatch, writes=writes), pytest.raises(Unreachable):
        scene.service.submit(Submitted(job=QA, intent=INTENT, needs=NEEDS))
    assert scene.service.new_id("qa") != QA
    service = scene.service
    await until(lambda: [*service.before(None)] if writes else service.new_id("qa") == QA)
    assert scene.service.new_id("qa") == ("qa-2" if writes else QA)
    assert [*scene.service.before(None)] == ([QA] if writes else [])


@pytest.mark.parametrize("writes", [False, True])
async def test_an_order_that_may_have_been_accepted_is_one_job_when_it_is_handed_in_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """Its first answer was lost, with the word of the journal that it has the job."""
    order = sign_order(INTENT, "net", clock.now_s() + 60.0, SigningKey.generate())
    submitted = Submitted(job=QA, intent=INTENT, needs=NEEDS, order=order)
    with Away(scene, monkeypatch, writes=writes):
        with pytest.raises(Unreachable):
            scene.service.submit(submitted)
        with pytest.raises(Unreachable):
            scene.service.ordered(order)
    known = scene.service.ordered(order)
    assert (known.job if known else None) == (QA if writes else None)
    await until(lambda: scene.commands or not writes)


async def test_work_is_handed_in_again_in_the_order_in_which_it_was_given(scene: Scene) -> None:
    """The first job has made its fresh model and waits behind the second for its next visit."""
    first, second = scene.submit("qa-1"), scene.submit("qa-2")
    scene.service.lost(SiteId("netco"))
    for name in ("qa-2", "qa-1"):
        route = Route(start=None, visits=(stop("netco"),), reaches=True)
        scene.service.feed(JobId(name), Planned(route=route, decision=DECISION))
    await until(lambda: len(scene.starts()) == 4)
    again = JobService(scene.journal, scene.act, scene.shown.append)
    scene.commands.clear()
    again.start()
    again.recover()
    await until(lambda: len(scene.starts()) >= 2)
    assert [start.work.job for start in scene.starts()][:2] == ["qa-2", "qa-1"]
    assert {first.work.job, second.work.job} == {"qa-1", "qa-2"}
    await again.close()


async def test_the_id_of_a_job_that_cannot_be_read_back_is_taken(scene: Scene) -> None:
    """Its owner can hand in another one of that name, and its events stay as they are."""
    scene.journal.append(QA, 0, [b"of another version"], 1.0)
    again = JobService(scene.journal, scene.act, scene.shown.append)
    again.start()
    assert [*again.before(None)] == []
    assert again.new_id("qa") == "qa-2"
    again.submit(Submitted(job=again.new_id("qa"), intent=INTENT, needs=NEEDS))
    assert again.new_id("qa") == "qa-3"
    await again.close()


async def test_a_job_whose_events_are_damaged_is_named_and_the_others_can_be_seen(
    scene: Scene,
) -> None:
    """Of two that have ended, and are read back only when somebody asks."""
    for name in ("qa-1", "qa-2"):
        scene.submit(name)
        scene.service.cancel(JobId(name))
        scene.service.settled([scene.service.get(JobId(name))])
    again = JobService(scene.journal, scene.act, scene.shown.append)
    again.start()
    first, second, third, *rest = scene.journal.events(JobId("qa-1"))
    scene.journal._events[JobId("qa-1")] = (first, second, third[:7], *rest)
    views = JobViews(again, lambda site: None)

    listed = decode(await views.on_jobs("", encode(JobQuery(job=JobId("")))), JobList)

    assert [job.job for job in listed.jobs] == ["qa-2"]
    assert [*again.unreadable] == ["qa-1"]
    with pytest.raises(Corrupt, match="job qa-1 cannot be read: its event 3 is damaged") as raised:
        await views.on_jobs("", encode(JobQuery(job=JobId("qa-1"))))
    assert "backup" in raised.value.fix
    (found,) = check_jobs(tuple(again.unreadable))
    assert (found.level, found.subject) == (Level.PROBLEM, "job qa-1")
    await again.close()


async def test_a_database_that_fails_at_the_start_is_no_damage_to_a_job(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts again, like any process whose database is away."""
    scene.submit("qa-1")
    again = JobService(scene.journal, scene.act, scene.shown.append)

    def fails(job: JobId) -> tuple[bytes, ...]:
        raise Unreachable("the database is away", field="database")

    with monkeypatch.context() as away:
        away.setattr(scene.journal, "events", fails)
        with pytest.raises(Unreachable):
            again.start()

    assert not again.unreadable
    await again.close()


async def test_work_is_handed_in_by_one_task_however_long_a_site_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_module, "RESEND_EVERY_S", 0.02)
    scene = Scene()
    released = asyncio.Event()
    begun: list[Command] = []

    async def act(job: Job, command: Command) -> None:
        begun.append(command)
        await released.wait()

    scene.service = JobService(scene.journal, act, scene.shown.append)
    scene.service.start()
    work = scene.submit()
    for _ in range(20):
        scene.service.joined(SiteId("netco"))
        await asyncio.sleep(0.02)
    assert [c for c in begun if isinstance(c, StartWork)] == [work]
    released.set()
    await until(lambda: len([c for c in begun if isinstance(c, StartWork)]) > 1)
    await scene.service.close()


async def test_a_site_is_told_to_stop_however_soon_its_job_goes_on(scene: Scene) -> None:
    work = scene.submit()
    visit = work.work.visit
    scene.service.feed(QA, WorkStalled(site=SiteId("netco"), visit=visit, silent_s=60.0))
    route = Route(start=None, visits=(stop("medco"),), reaches=True)
    scene.service.feed(QA, Planned(route=route, decision=DECISION))
    await until(lambda: "medco" in {start.site for start in scene.starts()})
    assert StopWork(SiteId("netco"), visit) in scene.commands
    assert work not in scene.starts(), "nobody awaits it any more"


async def test_a_site_that_says_nothing_new_is_told_of(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passed_s = 0.0
    passing = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s)
    monkeypatch.setattr(jobs_module, "time", passing)
    monkeypatch.setattr(jobs_module, "RESEND_EVERY_S", 0.05)
    work = scene.submit()
    scene.service.status_received(QA, work.work.visit, RUNNING)
    passed_s = 2 * view_module.SILENT_S
    await until(lambda: "no news of qa-1.1 from netco" in caplog.text)
    await until(lambda: scene.shown[-1].silent)
    assert scene.shown[-1].silent.startswith("netco for ")
    assert "nothing new from netco for" in scene.service.view(QA).detail
    handed_in = len(scene.starts())
    await until(lambda: len(scene.starts()) > handed_in + 3)
    assert caplog.text.count("no news of") == 1
    scene.service.status_received(
        QA, work.work.visit, WorkStatus(state=WorkState.RUNNING, done=1, total=2)
    )
    assert scene.service.view(QA).silent == ""


async def test_a_site_is_told_to_stop_though_the_control_centre_died_before_it_could_say_so(
    scene: Scene,
) -> None:
    """Else it trains for nobody until the visit's end."""
    work = scene.submit()
    scene.service.cancel(QA)
    await scene.service.close()  # Nothing was sent yet: the event loop had no turn.
    assert scene.commands == []
    again = JobService(scene.journal, scene.act, scene.shown.append)
    again.start()
    assert again.awaited() == {work.site}
    again.recover()
    stopped = StopWork(work.site, work.work.visit)
    await until(lambda: stopped in scene.commands)
    await again.close()
