"""The journal's in-memory twin."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence

from daitn.objects.accounts import LedgerEntry, LedgerLine, LedgerQuestion, chained
from daitn.objects.audit import START
from daitn.objects.identifiers import JobId
from daitn.tools.journal.protocol import check_expected, stale

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """A `Journal` that ends with its process. It is thread-safe."""

    def __init__(self) -> None:
        self._events: dict[JobId, tuple[bytes, ...]] = {}
        self._records: dict[tuple[str, str], bytes] = {}
        self._lines: list[LedgerLine] = []
        self._causes: set[str] = set()
        self._lock = threading.Lock()

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        check_expected(expected_seq)
        with self._lock:
            known = self._events.get(job, ())
            if len(known) != expected_seq:
                raise stale(job, expected_seq, len(known))
            if events:
                self._events[job] = (*known, *events)
            self._post(entries)
            return len(known) + len(events)

    def events(self, job: JobId) -> tuple[bytes, ...]:
        return self._events.get(job, ())

    def jobs(self) -> tuple[JobId, ...]:
        with self._lock:
            return tuple(self._events)

    def counts(self) -> dict[JobId, int]:
        with self._lock:
            return {job: len(events) for job, events in self._events.items()}

    def put(self, kind: str, name: str, value: bytes) -> None:
        with self._lock:
            self._records[kind, name] = value

    def put_once(self, kind: str, name: str, value: bytes) -> bytes:
        with self._lock:
            return self._records.setdefault((kind, name), value)

    def get(self, kind: str, name: str) -> bytes | None:
        return self._records.get((kind, name))

    def all(self, kind: str) -> dict[str, bytes]:
        with self._lock:
            records = sorted(self._records.items())
        return {name: value for (of, name), value in records if of == kind}

    def post(
        self,
        entries: Sequence[LedgerEntry],
        records: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        with self._lock:
            self._post(entries)
            self._records.update(records or {})

    def _post(self, entries: Sequence[LedgerEntry]) -> None:
        for entry in entries:
            if entry.cause in self._causes:
                continue
            self._causes.add(entry.cause)
            before = self._lines[-1].digest if self._lines else START
            number, digest = len(self._lines) + 1, chained(before, entry)
            self._lines.append(LedgerLine(number=number, entry=entry, digest=digest))

    def ledger(self, question: LedgerQuestion) -> tuple[LedgerLine, ...]:
        wanted = None if question.accounts is None else set(question.accounts)
        found = [
            line
            for line in self._lines[question.after :]
            if question.from_s <= line.entry.at_s < question.to_s
            and (wanted is None or any(one.account in wanted for one in line.entry.postings))
        ]
        return tuple(found[: question.limit])

    def ledger_head(self) -> LedgerLine | None:
        return self._lines[-1] if self._lines else None

    def accounts(self) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for line in self._lines:
            for one in line.entry.postings:
                sums[one.account] += one.micro_usd
        return dict(sorted(sums.items()))

    def posted(self) -> dict[str, int]:
        return dict(Counter(line.entry.job for line in self._lines if line.entry.job))

    def close(self) -> None:
        """Does nothing."""
