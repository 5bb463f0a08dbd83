"""Events of jobs in a control centre's journal, each with its time."""

from __future__ import annotations

import msgspec

from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobEvent
from daitn.objects.wire import decode
from daitn.tools.journal.protocol import Journal

__all__ = ["StoredEvent", "stored_events", "unreadable"]


class StoredEvent(msgspec.Struct, frozen=True):
    """An event in the journal, with the time at which it was recorded."""

    event: JobEvent
    at_s: float


def stored_events(journal: Journal, job: JobId, now_s: float) -> list[StoredEvent]:
    """A job's events, oldest first, with times that never decrease and do not exceed `now_s`.

    The clock is steady within each run of the control centre. If the wall clock was set back
    between two runs, the times of earlier events move back as far, so that a job keeps its time
    budget. Raises `Corrupt`, naming the job and the event.
    """
    try:
        events = journal.events(job)
    except Corrupt as error:
        raise unreadable(job, error.problem) from error
    stored = [_read(event, job, number) for number, event in enumerate(events, start=1)]
    ordered: list[StoredEvent] = []
    later_s, moved_s = now_s, 0.0
    for one in reversed(stored):
        moved_s = max(moved_s, one.at_s - later_s)
        later_s = one.at_s - moved_s
        ordered.append(StoredEvent(one.event, later_s))
    return ordered[::-1]


def _read(event: bytes, job: JobId, number: int) -> StoredEvent:
    try:
        return decode(event, StoredEvent)
    except Corrupt as error:
        raise unreadable(job, f"its event {number} is damaged: {error.problem}") from error


def unreadable(job: JobId, problem: str) -> Corrupt:
    """The error for a job that cannot be read from the journal."""
    return Corrupt(
        f"the job {job} cannot be read: {problem}",
        field="database",
        fix="restore the control centre's latest backup in which the job is whole; a later version "
        "of daitn may have written it, too",
    )
