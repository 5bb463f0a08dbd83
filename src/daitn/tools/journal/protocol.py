"""The control centre's durable state: events of jobs, small records, and the ledger.

It has two implementations beside this file, `SqlJournal` and its in-memory twin `MemoryJournal`.
Both pass the same contract test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from daitn.objects.accounts import LedgerEntry, LedgerLine, LedgerQuestion
from daitn.objects.errors import StaleAppend, StorageFull, Unreachable
from daitn.objects.identifiers import JobId

__all__ = ["Journal", "check_expected", "failed_storage", "stale"]


class Journal(Protocol):
    """Events per job and a ledger, both append-only, and records by kind and name."""

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        """Append events to a job that has `expected_seq` of them, and their costs to the ledger.
        Returns the new number of events.

        On return, either all are on disk, or none. The first append creates the job. `at_s`: when
        the events were received, in seconds since the Unix epoch. Entries as in `post`. Raises
        `StaleAppend` if the job has another number of events, and `StorageFull`.
        """
        ...

    def events(self, job: JobId) -> tuple[bytes, ...]:
        """All events of a job in order; none for an unknown job."""
        ...

    def jobs(self) -> tuple[JobId, ...]:
        """All jobs in the order of their first append."""
        ...

    def counts(self) -> dict[JobId, int]:
        """Number of events of each job, in the same order."""
        ...

    def put(self, kind: str, name: str, value: bytes) -> None:
        """Store a record, replacing one of the same kind and name. Raises `StorageFull`."""
        ...

    def get(self, kind: str, name: str) -> bytes | None: ...

    def all(self, kind: str) -> dict[str, bytes]:
        """All records of a kind, sorted by name."""
        ...

    def post(
        self,
        entries: Sequence[LedgerEntry],
        records: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        """Append entries to the ledger except those whose cause exists, and put records by kind and
        name. On return, either all are on disk, or none. Raises `StorageFull`."""
        ...

    def ledger(self, question: LedgerQuestion) -> tuple[LedgerLine, ...]:
        """Entries of the ledger, oldest first."""
        ...

    def ledger_head(self) -> LedgerLine | None:
        """The latest entry; none if the ledger is empty."""
        ...

    def accounts(self) -> dict[str, int]:
        """Every account's balance in micro-USD, by its name."""
        ...

    def posted(self) -> dict[str, int]:
        """Number of ledger entries of each job."""
        ...

    def close(self) -> None: ...


def check_expected(expected_seq: int) -> None:
    """Check a number of events. Raises `ValueError` if it is negative."""
    if expected_seq < 0:
        raise ValueError(f"expected_seq is {expected_seq}; a job has 0 events or more")


def stale(job: JobId, expected_seq: int, found_seq: int) -> StaleAppend:
    """The error for a job with another number of events than its writer expects."""
    return StaleAppend(
        f"job {job} has {found_seq} events, its writer expected {expected_seq}",
        field="expected_seq",
        fix="read its events again; check that only one control centre uses this database",
    )


def failed_storage(error: Exception) -> bool:
    """Whether a journal has no room, or is unreachable: it will recover, and callers retry."""
    away = isinstance(error, Unreachable) and error.field == "database"
    return away or isinstance(error, StorageFull)
