"""The journal's tables in this version of the code.

A change here needs a migration in `migrations/versions` and a new `SCHEMA`.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from daitn.objects.errors import Corrupt

__all__ = ["EVENTS", "JOBS", "LEDGER", "METADATA", "POSTINGS", "RECORDS", "SCHEMA", "Bytes"]

SCHEMA: Final = "0003"
"""The revision of the newest migration."""

METADATA: Final = sa.MetaData()


class Bytes(sa.TypeDecorator[bytes]):
    """Bytes. SQLite's columns hold values of any type: another one raises `Corrupt` when read."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        if value is None or isinstance(value, bytes):
            return value
        raise Corrupt(
            f"a value in the database is {value!r:.40}, where bytes belong",
            field="database",
            fix="restore it from a backup",
        )


JOBS: Final = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.Text, nullable=False, unique=True),
)
"""Ids increase in the order of creation."""

EVENTS: Final = sa.Table(
    "events",
    METADATA,
    sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("event", Bytes, nullable=False),
)
"""`seq` counts from 1 in every job; two writers cannot both add the same one."""

RECORDS: Final = sa.Table(
    "records",
    METADATA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", Bytes, nullable=False),
)

LEDGER: Final = sa.Table(
    "ledger",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cause", sa.Text, nullable=False, unique=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("entry", Bytes, nullable=False),
    sa.Index("ledger_job", "job"),
    sa.Index("ledger_at_s", "at_s"),
)
"""Numbers count from 1. The causes keep a fact from being posted twice."""

POSTINGS: Final = sa.Table(
    "postings",
    METADATA,
    sa.Column("number", sa.Integer, sa.ForeignKey("ledger.number"), primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("micro_usd", sa.BigInteger, nullable=False),
    sa.Index("postings_account", "account", "number"),
)
"""A copy of the entries' postings, to find them by account."""
