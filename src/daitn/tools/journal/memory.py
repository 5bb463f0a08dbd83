"""The journal's in-memory twin."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from daitn.objects.identifiers import JobId
from daitn.tools.journal.protocol import check_expected, stale

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """A `Journal` that ends with its process. It is thread-safe."""

    def __init__(self) -> None:
        self._events: dict[JobId, tuple[bytes, ...]] = {}
        self._records: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def append(self, job: JobId, expected_seq: int, events: Sequence[bytes], at_s: float) -> int:
        check_expected(expected_seq)
        with self._lock:
            known = self._events.get(job, ())
            if len(known) != expected_seq:
                raise stale(job, expected_seq, len(known))
            if events:
                self._events[job] = (*known, *events)
            return len(known) + len(events)

    def events(self, job: JobId) -> tuple[bytes, ...]:
        return self._events.get(job, ())

    def jobs(self) -> tuple[JobId, ...]:
        with self._lock:
            return tuple(self._events)

    def put(self, kind: str, name: str, value: bytes) -> None:
        with self._lock:
            self._records[kind, name] = value

    def get(self, kind: str, name: str) -> bytes | None:
        return self._records.get((kind, name))

    def all(self, kind: str) -> dict[str, bytes]:
        with self._lock:
            records = sorted(self._records.items())
        return {name: value for (of, name), value in records if of == kind}

    def close(self) -> None:
        """Nothing to close."""
