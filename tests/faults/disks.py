"""Disks of the machines of a run: folders in memory that fill up, and a database that goes away."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from daitn.files import atomic
from daitn.node.audit import AuditLog
from daitn.objects.accounts import LedgerEntry
from daitn.objects.errors import StorageFull, Unreachable
from daitn.objects.identifiers import Digest, JobId
from daitn.tools.journal.memory import MemoryJournal
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.parts import storage_full
from tests.faults.virtual import MACHINE

__all__ = ["Database", "Fence", "Lease", "full_disks"]


class Database:
    """What a control centre's journal has on disk: it outlives the process."""

    def __init__(self) -> None:
        self.kept = MemoryJournal()
        self.away = False
        """Nobody reaches it: nothing is read or written."""
        self.mute = False
        """It writes, and the word that it has gets lost."""
        self.cut: set[str] = set()
        """Machines that do not reach it."""
        self.lease = Lease()
        self.blobs: dict[Digest, bytes] = {}
        self.written_by = 0
        """The newest leadership that has written anything."""
        self.wrong: list[str] = []
        """What an older one wrote after it."""

    def connect(self, url: str, fence: Fence | None = None, silent_s: float = 0.0) -> _Connection:
        return _Connection(self, fence)

    def check_reached(self) -> None:
        machine = MACHINE.get()
        if self.away or (machine is not None and machine.name in self.cut):
            raise _away()

    def answer(self) -> None:
        """Say that it has written, if it can."""
        if self.mute:
            raise _away()

    def check_leads(self, fence: Fence | None) -> None:
        """Ask the fence of whoever writes, and take down whether it is right."""
        if fence is None:
            return
        row = SimpleNamespace(epoch=self.lease.epoch, replica=self.lease.replica)
        fence(SimpleNamespace(execute=lambda _: SimpleNamespace(one_or_none=lambda: row)))
        epoch = fence.__self__.epoch  # type: ignore[attr-defined]
        if epoch < max(self.written_by, self.lease.epoch):
            self.wrong.append(f"leadership {epoch} wrote during {self.lease.epoch}")
        self.written_by = max(self.written_by, epoch)


Fence = Callable[[Any], None]
"""`Term.fence` of whoever writes, of control centres that share the database."""


@dataclass
class Lease:
    """Who leads of them."""

    epoch: int = 0
    replica: str = ""
    beat: int = 0
    resigned: bool = False


class _Connection:
    """A `Journal` of one life of a control centre."""

    def __init__(self, database: Database, fence: Fence | None) -> None:
        self._database = database
        self._fence = fence

    def append(
        self,
        job: JobId,
        expected_seq: int,
        events: Sequence[bytes],
        at_s: float,
        entries: Sequence[LedgerEntry] = (),
    ) -> int:
        stored: int = self._write("append", job, expected_seq, events, at_s, entries)
        return stored

    def put(self, kind: str, name: str, value: bytes) -> None:
        self._write("put", kind, name, value)

    def post(
        self,
        entries: Sequence[LedgerEntry],
        records: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        self._write("post", entries, records)

    def measured(self) -> Iterator[Any]:
        return iter(())

    def close(self) -> None:
        """Nothing to close."""

    def __getattr__(self, name: str) -> Any:
        self._database.check_reached()
        return getattr(self._database.kept, name)

    def _write(self, name: str, *arguments: Any) -> Any:
        self._database.check_reached()
        self._database.check_leads(self._fence)
        machine = MACHINE.get()
        if machine is not None and machine.full:
            raise StorageFull("the database has no room", field="database")
        done = getattr(self._database.kept, name)(*arguments)
        self._database.answer()
        return done


def _away() -> Unreachable:
    return Unreachable("the database is away", field="database", fix="start it")


def _check_room() -> None:
    machine = MACHINE.get()
    if machine is not None and machine.full:
        raise OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def full_disks() -> Iterator[None]:
    """Machines whose disk is full write nothing."""
    with contextlib.ExitStack() as stack:
        for owner, name in ((atomic, "_held"), (AuditLog, "_write")):
            real = getattr(owner, name)

            def checked(*arguments: Any, _real: Any = real, **more: Any) -> Any:
                _check_room()
                return _real(*arguments, **more)

            stack.enter_context(mock.patch.object(owner, name, checked))
        put = DiskBlobStore._put

        def stored(store: DiskBlobStore, digest: Digest, data: bytes) -> None:
            try:
                _check_room()
            except OSError:
                raise storage_full(store._blobs, len(data)) from None
            put(store, digest, data)

        stack.enter_context(mock.patch.object(DiskBlobStore, "_put", stored))
        yield
