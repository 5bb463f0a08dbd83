"""Data that control centres with a shared database store there beside the journal: owners' start
weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from daitn.files.items import ItemStore
from daitn.files.state_folder import ProcessState
from daitn.objects.wire import decode, encode
from daitn.tools.journal.blobs import BlobRows
from daitn.tools.journal.leadership import Term
from daitn.tools.journal.protocol import Journal
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.releases import Released
from daitn.tools.mobility.shared import SharedBlobStore

__all__ = ["ReleaseRecords", "SharedStore", "copy_shared"]

_KIND = "release"


class ReleaseRecords:
    """The release rules of owners' start weights, in the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def put(self, name: str, item: Released) -> None:
        self._journal.put(_KIND, name, encode(item))

    def forget(self, name: str) -> None:
        # The journal cannot delete, so an empty record marks a deletion.
        self._journal.put(_KIND, name, b"")

    def __iter__(self) -> Iterator[Released]:
        return (decode(kept, Released) for kept in self._journal.all(_KIND).values() if kept)

    def take_in(self, folder: Path) -> None:
        """Copy the rules from a folder from before the database was shared. A leader from before
        the weights were shared has forgotten their rules: anyone who has the weights also has
        these."""
        known = self._journal.all(_KIND)
        for item in ItemStore(folder, Released):
            if not known.get(item.name):
                self.put(item.name, item)


class SharedStore(SharedBlobStore):
    """The weights that owners supplied to any of the control centres."""

    def __init__(self, folder: Path, database: str, term: Term) -> None:
        self._rows = BlobRows(database, term.fence)
        super().__init__(folder, self._rows)

    def close(self) -> None:
        """Close the connections."""
        self._rows.close()


def copy_shared(database: str, state: Path) -> None:
    """Copy all of that into a state folder, in the form of a single control centre."""
    rows, store = BlobRows(database, _unfenced), DiskBlobStore(state / ProcessState.MODELS)
    for digest in sorted(rows.digests()):
        if not store.has(digest) and (data := rows.get(digest)) is not None:
            store.write(data, digest)
    rows.close()
    journal, items = SqlJournal(database), ItemStore(state / ProcessState.RELEASES, Released)
    for released in ReleaseRecords(journal):
        items.put(released.name, released)
    journal.close()


def _unfenced(connection: sa.Connection) -> None:
    """A connection that never writes."""
