"""The control centre's durable state: events of jobs, and small records.

It has two implementations beside this file, `SqlJournal` and its in-memory twin `MemoryJournal`.
Both pass the same contract test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daitn.objects.errors import StaleAppend
from daitn.objects.identifiers import JobId

__all__ = ["Journal", "check_expected", "stale"]


class Journal(Protocol):
    """Events per job, only ever appended, and records by kind and name."""

    def append(self, job: JobId, expected_seq: int, events: Sequence[bytes], at_s: float) -> int:
        """Append events to a job that has `expected_seq` of them. Returns how many it has then.

        On return, either all are on disk, or none. The first append creates the job. `at_s`: when
        the events were received, in seconds since the Unix epoch. Raises `StaleAppend` if the job
        has another number of events, and `StorageFull`.
        """
        ...

    def events(self, job: JobId) -> tuple[bytes, ...]:
        """All events of a job in the order of appending; none for an unknown job."""
        ...

    def jobs(self) -> tuple[JobId, ...]:
        """All jobs in the order of their first append."""
        ...

    def put(self, kind: str, name: str, value: bytes) -> None:
        """Store a record, replacing one of the same kind and name. Raises `StorageFull`."""
        ...

    def get(self, kind: str, name: str) -> bytes | None: ...

    def all(self, kind: str) -> dict[str, bytes]:
        """All records of a kind, sorted by name."""
        ...

    def close(self) -> None: ...


def check_expected(expected_seq: int) -> None:
    """Check a number of events. Raises `ValueError` if it is negative."""
    if expected_seq < 0:
        raise ValueError(f"expected_seq is {expected_seq}; a job has 0 events or more")


def stale(job: JobId, expected_seq: int, found_seq: int) -> StaleAppend:
    """The error for a job that does not have as many events as its writer expects."""
    return StaleAppend(
        f"job {job} has {found_seq} events, its writer expected {expected_seq}",
        field="expected_seq",
        fix="read its events again; check that only one control centre uses this database",
    )
