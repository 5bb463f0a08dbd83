from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.node.training.begun import BegunVisit, BegunVisits
from daitn.node.training.work_log import WorkLog
from daitn.node.training.work_queue import WorkQueue, WorkResult
from daitn.objects.errors import InvalidInput, Refused, Unreachable, WorkFailed
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.lineage import Origin
from daitn.objects.messages import VisitWork, Work, WorkOutcome, WorkProgress, WorkState
from daitn.objects.models import ModelRef
from tests.scenes.waiting import PATIENCE_S, until

KEY = SigningKey.generate()
SITE = SiteId("ghr")
MODEL = ModelRef(manifest=Digest("a" * 64), size_bytes=1, holders=(SITE,))


def work(visit: str = "qa-1.1", seed: int = 0) -> VisitWork:
    return VisitWork(
        visit=VisitId(visit), job=JobId("qa-1"), recipe="classifier", config={}, seed=seed,
        owner="acme", dataset="qa", examples=0, model=None, previous=(),
    )  # fmt: skip


async def done(work: Work) -> WorkResult:
    fact = Origin(
        job=work.job, visit=work.visit, site=SITE, at_s=0.0, recipe="classifier", seed=0,
        model=MODEL.manifest,
    )  # fmt: skip
    return WorkResult(entry=sign_entry(fact, (), KEY), model=MODEL)


class Center:
    """Hears reports, after as many refusals to answer as it is told."""

    def __init__(self, deaf: int = 0, error: type[Exception] = Unreachable) -> None:
        self.heard: list[WorkOutcome] = []
        self.tried = 0
        self._deaf = deaf
        self._error = error
        self.came = asyncio.Event()

    async def report(self, outcome: WorkOutcome) -> None:
        self.tried += 1
        if self.tried <= self._deaf:
            self.came.set()
            raise self._error("nobody is there")
        self.heard.append(outcome)
        self.came.set()


def work_queue(
    folder: Path,
    center: Center,
    perform: Callable[[Work], Awaitable[WorkResult]] = done,
    begun: BegunVisits | None = None,
) -> WorkQueue:
    return WorkQueue(SITE, WorkLog(folder), perform, center.report, begun)


async def heard(center: Center) -> WorkOutcome:
    async with asyncio.timeout(PATIENCE_S):
        while not center.heard:
            await center.came.wait()
            await asyncio.sleep(0.01)
            if not center.heard:
                center.came.clear()
    return center.heard[0]


async def test_work_is_done_once_however_often_it_is_handed_in(tmp_path: Path) -> None:
    begun: list[VisitId] = []

    async def perform(work: Work) -> WorkResult:
        begun.append(work.visit)
        return await done(work)

    center = Center()
    there = work_queue(tmp_path, center, perform)
    for _ in range(3):
        there.start(work())
    outcome = await heard(center)
    assert outcome.state is WorkState.DONE
    assert there.start(work()).state is WorkState.DONE
    assert begun == ["qa-1.1"]
    await there.close()


async def test_who_hears_of_the_end_of_work_knows_before_that_the_site_is_free(
    tmp_path: Path,
) -> None:
    happened: list[int | str] = []

    async def report(outcome: WorkOutcome) -> None:
        happened.append(str(outcome.visit))

    there = WorkQueue(
        SITE, WorkLog(tmp_path), done, report, changed=lambda: happened.append(there.queue)
    )
    there.start(work("qa-1.1"))
    there.start(work("qa-1.2"))
    await until(lambda: len(happened) == 6)
    assert happened == [1, 2, 1, 0, "qa-1.1", "qa-1.2"]
    await there.close()


async def test_an_outcome_is_reported_until_it_is_heard(tmp_path: Path) -> None:
    center = Center(deaf=2)
    there = work_queue(tmp_path, center)
    there.start(work())
    await heard(center)
    assert center.tried == 3
    await there.close()


async def test_a_report_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    center = Center(deaf=100, error=Refused)
    there = work_queue(tmp_path, center)
    there.start(work())
    async with asyncio.timeout(PATIENCE_S):
        await center.came.wait()
        while not all(note.reported for note in WorkLog(tmp_path).all()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert center.tried == 1
    await there.close()


async def test_what_was_finished_and_not_heard_is_reported_after_a_restart(tmp_path: Path) -> None:
    silent = Center(deaf=100)
    before = work_queue(tmp_path, silent)
    before.start(work())
    async with asyncio.timeout(PATIENCE_S):
        await silent.came.wait()
    await before.close()
    center = Center()
    after = work_queue(tmp_path, center)
    assert after.models() == {MODEL.manifest}
    after.resume()
    outcome = await heard(center)
    assert outcome.model == MODEL
    await after.close()


async def test_what_was_cut_off_is_forgotten_after_a_restart(tmp_path: Path) -> None:
    async def never(work: Work) -> WorkResult:
        await asyncio.Event().wait()
        raise AssertionError

    before = work_queue(tmp_path, Center(), never)
    assert before.start(work()).state is WorkState.RUNNING
    assert before.queue == 1
    await before.close()
    after = work_queue(tmp_path, Center())
    after.resume()
    assert after.status(VisitId("qa-1.1")).state is WorkState.UNKNOWN


async def never(work: Work) -> WorkResult:
    await asyncio.Event().wait()
    raise AssertionError


def keep(begun: BegunVisits, visit: str = "qa-1.1") -> Path:
    """Keep a savepoint of a visit."""
    begun.put(VisitId(visit), BegunVisit(made_of="a", counted_at_s=1.0, savepoint=1))
    file = begun.folder(VisitId(visit)) / "1.savepoint"
    file.write_bytes(b"weights")
    return file


async def test_what_was_cut_off_after_a_savepoint_goes_on_when_it_is_asked_for(
    tmp_path: Path,
) -> None:
    begun = BegunVisits(tmp_path / "visits")
    before = work_queue(tmp_path / "work", Center(), never, begun)
    for visit in ("qa-1.1", "qa-1.2"):
        before.start(work(visit))
    file = keep(begun)
    await before.close()
    assert file.exists()
    center = Center()
    after = work_queue(tmp_path / "work", center, done, begun)
    after.resume()
    assert after.queue == 0, "others may do it by now"
    for visit in ("qa-1.1", "qa-1.2"):
        assert after.status(VisitId(visit)).state is WorkState.UNKNOWN
    assert [logged.work.visit for logged in WorkLog(tmp_path / "work").all()] == ["qa-1.1"]
    assert after.start(work()).state is WorkState.RUNNING
    assert (await heard(center)).state is WorkState.DONE
    assert not file.exists()
    await after.close()


@pytest.mark.parametrize("ends", ["stopped", "failed", "old"])
async def test_a_savepoint_goes_with_its_work(tmp_path: Path, ends: str) -> None:
    now_s = [0.0]
    begun = BegunVisits(tmp_path / "visits", lambda: now_s[0])
    file = keep(begun)

    async def fails(work: Work) -> WorkResult:
        raise WorkFailed("the loss is no longer finite", fix="lower the learning rate")

    center = Center()
    there = work_queue(tmp_path / "work", center, fails if ends == "failed" else never, begun)
    there.start(work())
    match ends:
        case "stopped":
            await there.stop(VisitId("qa-1.1"))
        case "failed":
            await heard(center)
        case "old":
            await there.close()
            there = work_queue(tmp_path / "work", center, never, begun)
            now_s[0] = 100_000.0
            assert there.models() == frozenset()
    assert not file.exists()
    assert begun.get(VisitId("qa-1.1")) is None
    await there.close()


async def test_a_failure_is_reported_with_its_reason(tmp_path: Path) -> None:
    async def fails(work: Work) -> WorkResult:
        raise WorkFailed("killed by signal 9: out of memory?", fix="give it more memory")

    center = Center()
    there = work_queue(tmp_path, center, fails)
    there.start(work())
    outcome = await heard(center)
    assert outcome.state is WorkState.FAILED
    assert outcome.error is not None
    assert "out of memory" in outcome.error.problem
    await there.close()


async def test_stopped_work_is_forgotten_and_not_reported(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def never(work: Work) -> WorkResult:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    center = Center()
    there = work_queue(tmp_path, center, never)
    there.start(work())
    await begun.wait()
    await there.stop(VisitId("qa-1.1"))
    assert there.status(VisitId("qa-1.1")).state is WorkState.UNKNOWN
    assert there.queue == 0
    assert not center.heard


async def test_a_report_that_nobody_hears_is_one_task_and_ends_with_its_work(
    tmp_path: Path,
) -> None:
    center = Center(deaf=10**6)
    there = work_queue(tmp_path, center)
    there.start(work())
    async with asyncio.timeout(PATIENCE_S):
        await center.came.wait()
    for _ in range(20):
        there.start(work())
    assert len(reports()) == 1
    await there.stop(VisitId("qa-1.1"))
    assert reports() == []
    await there.close()


def reports() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("report")]


async def test_work_tells_how_far_it_is_and_what_is_before_it(tmp_path: Path) -> None:
    async def never(work: Work) -> WorkResult:
        await asyncio.Event().wait()
        raise AssertionError

    there = work_queue(tmp_path, Center(), never)
    first, second = (there.start(work(visit)) for visit in ("qa-1.1", "qa-1.2"))
    assert (first.ahead, second.ahead) == (0, 1)
    progress = WorkProgress(
        job=JobId("qa-1"), visit=VisitId("qa-1.2"), site=SITE, phase="fetching", done=3, total=9
    )
    there.progressed(progress)
    status = there.status(VisitId("qa-1.2"))
    assert (status.phase, status.done, status.total, status.ahead) == ("fetching", 3, 9, 1)
    there.progressed(msgspec.structs.replace(progress, phase="training"))
    assert there.status(VisitId("qa-1.2")).ahead == 0
    await there.stop(VisitId("qa-1.1"))
    there.progressed(msgspec.structs.replace(progress, visit=VisitId("qa-1.1")))
    assert there.status(VisitId("qa-1.1")).state is WorkState.UNKNOWN
    await there.close()


async def test_one_id_does_not_stand_for_two_pieces_of_work(tmp_path: Path) -> None:
    there = work_queue(tmp_path, Center())
    there.start(work())
    with pytest.raises(InvalidInput, match="the id of other work"):
        there.start(work(seed=1))
    await there.close()


def test_a_damaged_entry_is_set_aside_and_a_hostile_id_refused(tmp_path: Path) -> None:
    (tmp_path / "qa-1.1.msgpack").write_bytes(b"\xff\x00")
    work_log = WorkLog(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["qa-1.1.msgpack.corrupt"]
    assert work_log.get(VisitId("qa-1.1")) is None
    assert work_log.all() == ()
    with pytest.raises(InvalidInput):
        work_log.get(VisitId("../key"))
