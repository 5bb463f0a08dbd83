"""The job service and the ledger: what its jobs' facts cost is there once, however it ends."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from daitn.center import jobs as jobs_module
from daitn.center.jobs import JobService
from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.control.jobs.machine import replay
from daitn.objects.accounts import EntryKind, LedgerEntry, LedgerQuestion
from daitn.objects.errors import StorageFull
from daitn.objects.identifiers import JobId
from daitn.objects.intents import Training
from daitn.objects.jobs import Submitted
from daitn.objects.wire import encode
from daitn.tools.journal.memory import MemoryJournal
from tests.control.jobs.world import INTENT, World


def world() -> World:
    made = World(msgspec.structs.replace(INTENT, training=Training(credits_usd=5.0)))
    made.run()
    return made


def entries(journal: MemoryJournal) -> list[LedgerEntry]:
    return [line.entry for line in journal.ledger(LedgerQuestion())]


def untimed(found: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    return [msgspec.structs.replace(one, at_s=0.0) for one in found]


async def acted(job: Job, command: Command) -> None:
    """Nothing is done."""


async def test_facts_of_an_earlier_version_are_posted_at_the_start_and_not_again() -> None:
    made, journal = world(), MemoryJournal()
    stored = [encode(jobs_module._StoredEvent(event, at_s)) for event, at_s in made.facts]
    journal.append(made.job.id, 0, stored, 0.0)
    for _ in range(2):
        service = JobService(journal, acted, lambda view: None)
        service.start()
        assert entries(journal) == replay(made.facts).entries
        await service.close()


class FullNowAndThen(MemoryJournal):
    """A journal whose every third append fails."""

    appends = 0

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        self.appends += 1
        if self.appends % 3 == 0:
            raise StorageFull("no room")
        return super().append(job, expected_seq, events, at_s, entries)


async def test_an_event_that_is_not_stored_costs_nothing_until_it_is() -> None:
    made, journal = world(), FullNowAndThen()
    service = JobService(journal, acted, lambda view: None)
    service.start()
    failed = 0
    for event, _ in made.facts:
        while True:
            try:
                if isinstance(event, Submitted):
                    service.submit(event)
                else:
                    service.feed(made.job.id, event)
                break
            except StorageFull:
                failed += 1
        assert untimed(entries(journal)) == untimed(service.get(made.job.id).entries)
    await service.close()
    assert failed > 2
    assert untimed(entries(journal)) == untimed(made.job.entries)
    kinds = {entry.kind for entry in entries(journal)}
    assert kinds >= {EntryKind.POOL, EntryKind.CREDITS, EntryKind.VISIT, EntryKind.MEASUREMENT}
    assert sum(journal.accounts().values()) == 0
