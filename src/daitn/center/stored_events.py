"""Events of jobs in a control centre's journal, each with its time."""

from __future__ import annotations

import msgspec

from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobEvent
from daitn.objects.wire import decode
from daitn.tools.journal.protocol import Journal

__all__ = ["StoredEvent", "stored_events"]


class StoredEvent(msgspec.Struct, frozen=True):
    """An event in the journal, with the time at which it was recorded."""

    event: JobEvent
    at_s: float


def stored_events(journal: Journal, job: JobId, now_s: float) -> list[StoredEvent]:
    """A job's events, oldest first, with times that never decrease and do not exceed `now_s`.

    The clock is steady within each run of the control centre. If the wall clock was set back
    between two runs, the times of earlier events move back as far, so that a job keeps its time
    budget.
    """
    ordered: list[StoredEvent] = []
    later_s, moved_s = now_s, 0.0
    for one in reversed([decode(event, StoredEvent) for event in journal.events(job)]):
        moved_s = max(moved_s, one.at_s - later_s)
        later_s = one.at_s - moved_s
        ordered.append(StoredEvent(one.event, later_s))
    return ordered[::-1]
