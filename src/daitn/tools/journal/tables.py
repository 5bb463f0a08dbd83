"""The journal's tables in this version of the code.

A change here needs a migration in `migrations/versions` and a new `SCHEMA`.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

__all__ = ["EVENTS", "JOBS", "LEDGER", "METADATA", "POSTINGS", "RECORDS", "SCHEMA"]

SCHEMA: Final = "0003"
"""The revision of the newest migration."""

METADATA: Final = sa.MetaData()

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
    sa.Column("event", sa.LargeBinary, nullable=False),
)
"""`seq` counts from 1 in every job; two writers cannot both add the same one."""

RECORDS: Final = sa.Table(
    "records",
    METADATA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

LEDGER: Final = sa.Table(
    "ledger",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cause", sa.Text, nullable=False, unique=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
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
