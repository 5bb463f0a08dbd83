"""Owners' uploads to control centres that share a database: each finds those received by others."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from daitn.objects.identifiers import Digest
from daitn.tools.journal.leadership import LASTS_S
from daitn.tools.journal.opening import open_database, plain_errors
from daitn.tools.journal.shared import BLOBS

__all__ = ["BlobRows"]


class BlobRows:
    """Blobs by digest in a PostgreSQL database. Thread-safe.

    Every method also raises as `SqlJournal` does.
    """

    def __init__(self, url: str, fence: Callable[[sa.Connection], None]) -> None:
        """`fence`: as in `SqlJournal`."""
        self._engine = open_database(url, LASTS_S)
        self._fence = fence

    def put(self, digest: Digest, data: bytes) -> None:
        """Store a blob; it is on disk when this returns."""
        insert = postgresql.insert(BLOBS).values(digest=digest, data=data)
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            self._fence(connection)
            connection.execute(insert.on_conflict_do_nothing())

    def get(self, digest: Digest) -> bytes | None:
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            return connection.scalar(sa.select(BLOBS.c.data).where(BLOBS.c.digest == digest))

    def has(self, digest: Digest) -> bool:
        query = sa.select(BLOBS.c.digest).where(BLOBS.c.digest == digest)
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            return connection.scalar(query) is not None

    def digests(self) -> frozenset[Digest]:
        """Digests of all blobs."""
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            return frozenset(map(Digest, connection.scalars(sa.select(BLOBS.c.digest))))

    def drop(self, digest: Digest) -> None:
        """Delete a blob. Dropping twice is harmless."""
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            self._fence(connection)
            connection.execute(sa.delete(BLOBS).where(BLOBS.c.digest == digest))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
