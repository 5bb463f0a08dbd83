"""Control centres that share a database, in virtual time: who leads is told by rows in memory, as
`Leadership` keeps them in PostgreSQL. Terms, fences and turns are the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

from daitn.center import database_owner as owner_module
from daitn.center import sharing as sharing_module
from daitn.cli import replicas as replicas_module
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest
from daitn.tools import clock
from daitn.tools.journal.leadership import BEAT_S, TAKEN_AFTER_S, LeadershipTurn, Term
from tests.faults.disks import Database

__all__ = ["shared"]


@contextmanager
def shared(database: Database) -> Iterator[None]:
    """Have control centres take turns at this database."""

    def standing(url: str, replica: str, endpoints: tuple[str, ...]) -> _Leadership:
        return _Leadership(database, replica)

    def blobs(url: str, fence: Callable[[Any], None]) -> _Blobs:
        return _Blobs(database, fence)

    with (
        mock.patch.object(replicas_module, "Leadership", standing),
        mock.patch.object(sharing_module, "BlobRows", blobs),
        mock.patch.object(owner_module, "SqlJournal", database.connect),
    ):
        yield


class _Leadership:
    """A `Leadership` that beats on the event loop."""

    def __init__(self, database: Database, replica: str) -> None:
        self._database = database
        self._replica = replica
        self._term: Term | None = None
        self._seen: tuple[tuple[int, int], float] | None = None
        """Epoch and beat of another one that leads, and since when it shows them."""
        self._beating: asyncio.Task[None] | None = None

    def turn(self) -> LeadershipTurn | None:
        term = self._term
        return LeadershipTurn(term, tuple) if term is not None and term.holds else None

    def start(self) -> None:
        self._beating = asyncio.create_task(self._beat())

    def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        if self._term is not None and self._database.lease.epoch == self._term.epoch:
            self._database.lease.resigned = True

    async def _beat(self) -> None:
        while True:
            with suppress(DaitnError):
                self._step()
            await asyncio.sleep(BEAT_S)

    def _step(self) -> None:
        began_s, term = clock.elapsed_s(), self._term
        self._database.check_reached()
        lease = self._database.lease
        if term is not None and term.holds:
            if lease.epoch != term.epoch:
                term.end()
                return
            lease.beat += 1
            self._database.answer()
            term.renew(began_s)
            return
        self._term, shown = None, (lease.epoch, lease.beat)
        if self._seen is None or self._seen[0] != shown:
            self._seen = shown, began_s
        silent_s = began_s - self._seen[1]
        free = not lease.epoch or lease.resigned or lease.replica == self._replica
        if not free and silent_s < TAKEN_AFTER_S:
            return
        lease.epoch = max(lease.epoch + 1, int(clock.wall_s()))
        lease.replica, lease.resigned, self._seen = self._replica, False, None
        self._database.answer()
        self._term = Term(lease.epoch, lambda: clock.elapsed_s())
        self._term.renew(began_s)


class _Blobs:
    """`BlobRows` in memory."""

    def __init__(self, database: Database, fence: Callable[[Any], None]) -> None:
        self._database, self._fence = database, fence

    def put(self, digest: Digest, data: bytes) -> None:
        self._database.check_reached()
        self._database.check_leads(self._fence)
        self._database.blobs[digest] = data

    def get(self, digest: Digest) -> bytes | None:
        self._database.check_reached()
        return self._database.blobs.get(digest)

    def has(self, digest: Digest) -> bool:
        return self.get(digest) is not None

    def digests(self) -> frozenset[Digest]:
        self._database.check_reached()
        return frozenset(self._database.blobs)

    def drop(self, digest: Digest) -> None:
        self._database.check_reached()
        self._database.check_leads(self._fence)
        self._database.blobs.pop(digest, None)

    def close(self) -> None:
        """Nothing to close."""
