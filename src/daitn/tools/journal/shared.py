"""Tables of control centres that share a database, apart from the journal's.

A copy of the journal has none of them: it is another database's leaders who count there, and a
backup has the blobs as files.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from daitn.tools.journal.tables import Bytes

__all__ = ["BLOBS", "LEADERSHIP", "REPLICAS", "SHARED"]

SHARED: Final = sa.MetaData()

LEADERSHIP: Final = sa.Table(
    "leadership",
    SHARED,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("replica", sa.Text, nullable=False),
)
"""One row, which changes only when another one begins to lead."""
REPLICAS: Final = sa.Table(
    "replicas",
    SHARED,
    sa.Column("replica", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("seen_s", sa.Double, nullable=False),
    sa.Column("endpoints", sa.Text, nullable=False),
    sa.Column("software", sa.Text, nullable=False),
)
"""`epoch`: of its leadership; 0 means it is a standby. `seen_s`: by the database's clock, for
display."""

BLOBS: Final = sa.Table(
    "blobs",
    SHARED,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("data", Bytes, nullable=False),
)
