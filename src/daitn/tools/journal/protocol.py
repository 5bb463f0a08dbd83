"""The seam of what the control centre must not forget: events of jobs, and small records.

Two implementations stand beside this file: `SqlJournal` and its in-memory twin `MemoryJournal`;
both pass the same contract test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daitn.objects.errors import StaleAppend
from daitn.objects.identifiers import JobId

__all__ = ["Journal", "check_expected", "stale"]


class Journal(Protocol):
    """Events per job, appended and never changed, and records by kind and name."""

    def append(self, job: JobId, expected_seq: int, events: Sequence[bytes], at_s: float) -> int:
        """Add events to a job that has `expected_seq` of them; how many it has then.

        All of them are on the disk when this returns, or none. The first append makes the job.
        `at_s`: when they were taken in, seconds since the Unix epoch. Raises `StaleAppend` when
        the job has another number of events, `StorageFull`.
        """
        ...

    def events(self, job: JobId) -> tuple[bytes, ...]:
        """Every event of a job in the order of appending; none for an unknown job."""
        ...

    def jobs(self) -> tuple[JobId, ...]:
        """All jobs in the order of their first appends."""
        ...

    def put(self, kind: str, name: str, value: bytes) -> None:
        """Keep a record in place of an earlier one of the name. Raises `StorageFull`."""
        ...

    def get(self, kind: str, name: str) -> bytes | None: ...

    def all(self, kind: str) -> dict[str, bytes]:
        """Every record of a kind by name, in order of names."""
        ...

    def close(self) -> None: ...


def check_expected(expected_seq: int) -> None:
    """Raise `ValueError` for a number of events that no job can have."""
    if expected_seq < 0:
        raise ValueError(f"expected_seq is {expected_seq}; a job has 0 events or more")


def stale(job: JobId, expected_seq: int, found_seq: int) -> StaleAppend:
    """The error when a job does not have as many events as its writer believes."""
    return StaleAppend(
        f"job {job} has {found_seq} events, its writer expected {expected_seq}",
        field="expected_seq",
        fix="read its events again; check that only one control centre uses this database",
    )
