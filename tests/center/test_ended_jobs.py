"""Ended jobs leave memory and come back as their facts say, wherever the control centre dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.center import jobs as jobs_module
from daitn.center.ended_jobs import EndedJob, models_of
from daitn.center.jobs import JobService
from daitn.center.stored_events import StoredEvent
from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay, replayed
from daitn.control.jobs.view import view
from daitn.objects.accounts import LedgerEntry
from daitn.objects.errors import Unreachable
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobEvent, JobSummary, Reported, Submitted, ValueAsked
from daitn.objects.wire import decode
from daitn.tools.journal.memory import MemoryJournal
from daitn.tools.journal.protocol import Journal
from daitn.tools.journal.sql import SqlJournal
from tests.control.jobs.world import World

NAMES = tuple(JobId(f"qa-{number}") for number in range(1, 4))


def lived(name: JobId) -> list[JobEvent]:
    """The facts of a job until it has reached its targets, and of a report that comes late."""
    world = World(job=name, at_s=time.time())
    world.run()
    events = [event for event, _ in world.facts]
    late = next(event for event in reversed(events) if isinstance(event, Reported))
    return [*events, late]


LIVED = {name: lived(name) for name in NAMES}


class Mortal(MemoryJournal):
    """Dies with one of its writes, before or after that is on disk."""

    def __init__(self, writes: int, *, after: bool) -> None:
        super().__init__()
        self._left, self._after = writes, after

    @contextlib.contextmanager
    def _write(self) -> Iterator[None]:
        dies = self._left <= 0
        if dies and not (self._after and self._left == 0):
            raise Unreachable("it is dead", field="database")
        self._left -= 1
        yield
        if dies:
            raise Unreachable("it died", field="database")

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        with self._write():
            return super().append(job, expected_seq, events, at_s, entries)

    def post(
        self,
        entries: Sequence[LedgerEntry],
        records: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        with self._write():
            super().post(entries, records)

    def revive(self) -> None:
        """It runs again, and for good."""
        self._left = 10**9


async def nothing(job: Job, command: Command) -> None:
    """Commands are carried out by the facts that follow."""


def service(journal: Journal) -> JobService:
    return JobService(journal, nothing, lambda shown: None)


async def live(journal: Journal, turns: Sequence[int]) -> None:
    """Hand jobs their facts in turns, until the journal dies."""
    jobs = service(journal)
    jobs.start()
    left = {name: iter(events) for name, events in LIVED.items()}
    try:
        for turn in itertools.chain(turns, itertools.cycle(range(len(NAMES)))):
            name = NAMES[turn % len(NAMES)]
            event = next(left[name], None)
            if event is None:
                if not any(len(journal.events(one)) < len(LIVED[one]) for one in NAMES):
                    break
            elif isinstance(event, Submitted):
                jobs.submit(event)
            else:
                jobs.feed(name, event)
            await asyncio.sleep(0)
    except Unreachable:
        pass
    finally:
        await jobs.close()


def told(journal: Journal) -> dict[JobId, Job]:
    """The oracle: every job as all of its facts say."""
    found = {}
    for name in journal.jobs():
        stored = [decode(event, StoredEvent) for event in journal.events(name)]
        found[name] = replay((one.event, one.at_s) for one in stored)
    return found


async def check(journal: Journal, *, twice: bool = True) -> None:
    """A control centre that starts knows what the oracle does, and goes on from there."""
    jobs = service(journal)
    jobs.start()
    jobs.settled(jobs.unsettled())
    expected = told(journal)
    assert [*jobs.before(None)] == [*reversed(expected)]
    assert jobs.models() == {model for job in expected.values() for model in models_of(job)}
    for name, job in expected.items():
        assert (jobs.owner(name), jobs.state(name)) == (job.intent.owner, job.state)
        if job.state.final:
            assert jobs.summary(name) == JobSummary.of(view(job, job.at_s))
        found = jobs.get(name)
        assert (found.history, found.made, found.lineage) == (job.history, job.made, job.lineage)
        assert found.entries == job.entries
    if twice:
        for name, job in expected.items():
            if job.state.final:
                jobs.feed(name, LIVED[name][-1])
    await jobs.close()
    if twice:
        await check(journal, twice=False)


@given(
    turns=st.lists(st.integers(0, 2), max_size=90),
    writes=st.integers(0, 100),
    after=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_wherever_it_dies_all_facts_count(turns: list[int], writes: int, after: bool) -> None:
    """Of a write that killed it, none or all is on disk; what was acknowledged is."""
    journal = Mortal(writes, after=after)
    with patch.object(jobs_module, "MOST_ENDED", 1):
        asyncio.run(live(journal, turns))
        journal.revive()
        asyncio.run(check(journal))


async def started(journal: Journal) -> JobService:
    jobs = service(journal)
    jobs.start()
    return jobs


async def test_a_restart_reads_the_facts_of_no_job_that_ended_and_all_others(
    tmp_path: Path,
) -> None:
    with closing(SqlJournal(f"sqlite:///{tmp_path / 'jobs.db'}")) as journal:
        await live(journal, ())
        submitted, at_s = World(job="open-1").facts[0]
        stored = msgspec.msgpack.encode(StoredEvent(submitted, at_s))
        journal.append(JobId("open-1"), 0, [stored], at_s)
        read: list[JobId] = []

        def events(job: JobId) -> tuple[bytes, ...]:
            read.append(job)
            return SqlJournal.events(journal, job)

        with patch.object(journal, "events", events):
            jobs = await started(journal)
            assert read == ["open-1"]
            assert sum(jobs.states().values()) == len(NAMES) + 1
            assert jobs.get(NAMES[0]).made
            assert read == ["open-1", NAMES[0]]
        await jobs.close()


async def test_what_an_older_version_added_to_an_ended_job_counts() -> None:
    """It writes facts and no outlines; and what it cannot read of outlines, nobody misses."""
    journal = MemoryJournal()
    await live(journal, ())
    now_s = time.time()
    stored = StoredEvent(ValueAsked(coalitions=4, within_s=60.0), now_s)
    journal.append(NAMES[0], len(journal.events(NAMES[0])), [msgspec.msgpack.encode(stored)], now_s)
    journal.put("ended-job", NAMES[1], b"\x93of another form")
    before = decode(journal.all("ended-job")[NAMES[0]], EndedJob)
    assert before.facts == len(journal.events(NAMES[0])) - 1
    await check(journal)


async def test_as_many_jobs_as_ever_end_only_the_latest_are_in_memory() -> None:
    journal = MemoryJournal()
    with patch.object(jobs_module, "MOST_ENDED", 2):
        await live(journal, ())
        jobs = await started(journal)
        for name in NAMES:
            jobs.get(name)
        assert len(jobs._jobs) <= 3
        await jobs.close()


async def test_a_job_stays_as_it_ended_however_its_events_are_read_later() -> None:
    journal = MemoryJournal()
    await live(journal, ())
    before = await started(journal)
    before.settled(before.unsettled())
    await before.close()
    with patch.object(jobs_module, "replayed", lambda events: replayed(list(events)[:4])):
        later = await started(journal)
        name = NAMES[0]
        job = later.get(name)
        assert (job.state, job.open) == (later.summary(name).state, False)
        assert job.detail == later.summary(name).detail
        assert not job.outstanding
        await later.close()
