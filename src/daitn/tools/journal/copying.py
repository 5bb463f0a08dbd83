"""Copies a whole journal from one database into another, as it stood at one moment."""

from __future__ import annotations

import itertools
from typing import Final

import sqlalchemy as sa
from sqlalchemy.types import NullType

from daitn.objects.errors import InvalidInput
from daitn.tools.journal.opening import damaged, open_database, plain_errors
from daitn.tools.journal.tables import METADATA, Bytes

__all__ = ["copy_journal", "is_empty"]

_ROWS: Final = 1000
"""Rows read and written at once."""


def copy_journal(source: str, target: str, rows: int | None = None) -> int:
    """Copy the journal at one SQLAlchemy URL to another, which must be empty. Returns the rows.

    Everything is read in one transaction, which sees the database as it was when that began: a
    control centre goes on to write meanwhile. Damaged values are copied as they are. Raises
    `InvalidInput` if the target is in use, `Corrupt` unless there are as many `rows` as expected,
    and as `SqlJournal` does.
    """
    reading, writing = open_database(source), open_database(target)
    snapshot = reading.execution_options(reads=True)
    if reading.dialect.name == "postgresql":
        snapshot = snapshot.execution_options(isolation_level="REPEATABLE READ")
    try:
        with (
            plain_errors(reading.url),
            snapshot.connect().execution_options(yield_per=_ROWS) as read,
            plain_errors(writing.url),
            writing.begin() as written,
        ):
            if not _holds_nothing(written):
                raise InvalidInput(
                    f"{writing.url.render_as_string(hide_password=True)} holds jobs or records",
                    field="database",
                    fix="name an empty database, or another one: nothing is overwritten",
                )
            copied = sum(_copied(table, read, written) for table in METADATA.sorted_tables)
            if rows is not None and copied != rows:
                raise damaged(reading.url, f"it has {copied} rows instead of {rows}")
            return copied
    finally:
        reading.dispose()
        writing.dispose()


def is_empty(url: str) -> bool:
    """Whether a database contains no journal, or an empty one."""
    engine = open_database(url)
    try:
        with plain_errors(engine.url), engine.begin() as connection:
            return _holds_nothing(connection)
    finally:
        engine.dispose()


def _holds_nothing(connection: sa.Connection) -> bool:
    return all(
        connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is None
        for table in METADATA.sorted_tables
    )


def _copied(table: sa.Table, read: sa.Connection, written: sa.Connection) -> int:
    count = 0
    columns = (sa.type_coerce(column, NullType()).label(column.name) for column in table.c)
    blobs = [column.name for column in table.c if isinstance(column.type, Bytes)]
    for rows in read.execute(sa.select(*columns)).mappings().partitions(_ROWS):
        values = [dict(row) for row in rows]
        for value, name in itertools.product(values, blobs):
            if not isinstance(value[name], bytes):
                value[name] = str(value[name]).encode()  # Damaged, and so it stays.
        written.execute(sa.insert(table), values)
        count += len(rows)
    key = table.autoincrement_column
    if count and key is not None and written.dialect.name == "postgresql":
        # Rows with explicit numbers did not advance the sequence.
        sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
        highest = sa.select(sa.func.max(key)).scalar_subquery()
        written.execute(sa.select(sa.func.setval(sequence, highest)))
    return count
