"""The journal in an SQL database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from daitn.objects.accounts import LedgerEntry, LedgerLine, LedgerQuestion
from daitn.objects.identifiers import JobId
from daitn.tools.journal import ledger, metrics
from daitn.tools.journal.opening import SILENT_S, damaged, open_database, plain_errors
from daitn.tools.journal.protocol import check_expected, stale
from daitn.tools.journal.tables import EVENTS, JOBS, RECORDS
from daitn.tools.monitoring.metrics import FAST_S, Histogram, Sample

__all__ = ["SqlJournal"]


class SqlJournal:
    """A `Journal` at an SQLAlchemy URL, for instance `sqlite:////var/lib/daitn/jobs.db`.

    It is thread-safe. Every method also raises `StorageFull`, `Corrupt`, `InvalidInput` or
    `Unreachable` if the database fails, naming the fix.
    """

    def __init__(
        self,
        url: str,
        fence: Callable[[sa.Connection], None] = lambda connection: None,
        silent_s: float = SILENT_S,
    ) -> None:
        """Open the database, and migrate its schema. `fence` raises in the transaction of a write
        that is no longer allowed, see `Term`. `silent_s`: see `open_database`."""
        self._engine = open_database(url, silent_s)
        self._fence = fence
        self._reader = self._engine.execution_options(reads=True)
        self._facts = self._fact_bytes = 0
        self._write_duration = Histogram(FAST_S)

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        check_expected(expected_seq)
        try:
            with self._writing() as connection:
                job_id, found_seq = _position(connection, job)
                if found_seq != expected_seq:
                    raise stale(job, expected_seq, found_seq)
                if events:
                    _add(connection, job, job_id, found_seq, events, at_s)
                ledger.post(connection, entries)
        except IntegrityError:
            raise stale(job, expected_seq, len(self.events(job))) from None
        self._facts += len(events)
        self._fact_bytes += sum(map(len, events))
        return expected_seq + len(events)

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield metrics.WRITES.at(self._facts)
        yield metrics.WRITTEN.at(self._fact_bytes)
        yield metrics.WRITE_DURATION.at(self._write_duration)

    def events(self, job: JobId) -> tuple[bytes, ...]:
        query = (
            sa.select(EVENTS.c.seq, EVENTS.c.event)
            .join(JOBS, JOBS.c.id == EVENTS.c.job_id)
            .where(JOBS.c.job == job)
            .order_by(EVENTS.c.seq)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
        for number, (seq, _) in enumerate(rows, start=1):
            if seq != number:
                raise damaged(self._engine.url, f"of {job}, the event {number} is missing")
        return tuple(event for _, event in rows)

    def jobs(self) -> tuple[JobId, ...]:
        with self._reading() as connection:
            return tuple(connection.scalars(sa.select(JOBS.c.job).order_by(JOBS.c.id)))

    def counts(self) -> dict[JobId, int]:
        # Not the latest number: where an event is missing, it is not that of the events.
        number = sa.select(sa.func.count()).where(EVENTS.c.job_id == JOBS.c.id)
        query = sa.select(JOBS.c.job, number.scalar_subquery()).order_by(JOBS.c.id)
        with self._reading() as connection:
            return {JobId(row[0]): row[1] for row in connection.execute(query)}

    def put(self, kind: str, name: str, value: bytes) -> None:
        self.post((), {(kind, name): value})

    def put_once(self, kind: str, name: str, value: bytes) -> bytes:
        """Store a record unless there is one, also if others do so now. Returns the stored one."""
        with self._writing() as connection:
            _put(connection, kind, name, value, replaces=False)
        stored = self.get(kind, name)
        return value if stored is None else stored

    def post(
        self,
        entries: Sequence[LedgerEntry],
        records: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        with self._writing() as connection:
            ledger.post(connection, entries)
            for (kind, name), value in (records or {}).items():
                _put(connection, kind, name, value)

    def ledger(self, question: LedgerQuestion) -> tuple[LedgerLine, ...]:
        with self._reading() as connection:
            return ledger.lines(connection, question)

    def ledger_head(self) -> LedgerLine | None:
        with self._reading() as connection:
            return ledger.head(connection)

    def accounts(self) -> dict[str, int]:
        with self._reading() as connection:
            return ledger.balances(connection)

    def posted(self) -> dict[str, int]:
        with self._reading() as connection:
            return ledger.posted(connection)

    def get(self, kind: str, name: str) -> bytes | None:
        query = sa.select(RECORDS.c.value).where(RECORDS.c.kind == kind, RECORDS.c.name == name)
        with self._reading() as connection:
            return connection.scalar(query)

    def all(self, kind: str) -> dict[str, bytes]:
        query = sa.select(RECORDS.c.name, RECORDS.c.value).where(RECORDS.c.kind == kind)
        with self._reading() as connection:
            # Databases differ in how they sort text.
            return dict(sorted((name, value) for name, value in connection.execute(query)))

    def close(self) -> None:
        """Close the connections. Every acknowledged write is on disk already."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        began_s = time.perf_counter()
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            self._fence(connection)
            yield connection
        self._write_duration.observe(time.perf_counter() - began_s)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with plain_errors(self._engine.url), self._reader.begin() as connection:
            yield connection


def _put(
    connection: sa.Connection, kind: str, name: str, value: bytes, *, replaces: bool = True
) -> None:
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    new = insert(RECORDS).values(kind=kind, name=name, value=value)
    key = [RECORDS.c.kind, RECORDS.c.name]
    if replaces:
        new = new.on_conflict_do_update(index_elements=key, set_={"value": value})
    else:
        new = new.on_conflict_do_nothing(index_elements=key)
    connection.execute(new)


def _position(connection: sa.Connection, job: JobId) -> tuple[int | None, int]:
    """A job's row and number of events; None and 0 for an unknown job."""
    query = (
        sa.select(JOBS.c.id, sa.func.coalesce(sa.func.max(EVENTS.c.seq), 0))
        .outerjoin(EVENTS, EVENTS.c.job_id == JOBS.c.id)
        .where(JOBS.c.job == job)
        .group_by(JOBS.c.id)
    )
    row = connection.execute(query).one_or_none()
    return (None, 0) if row is None else (row[0], row[1])


def _add(
    connection: sa.Connection,
    job: JobId,
    job_id: int | None,
    seq: int,
    events: Sequence[bytes],
    at_s: float,
) -> None:
    if job_id is None:
        job_id = connection.scalar(sa.insert(JOBS).values(job=job).returning(JOBS.c.id))
    rows = [
        {"job_id": job_id, "seq": number, "at_s": at_s, "event": event}
        for number, event in enumerate(events, start=seq + 1)
    ]
    connection.execute(sa.insert(EVENTS), rows)
