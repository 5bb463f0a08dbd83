"""The ledger: entries by number, and their postings by account."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the ledger's tables, empty: as it starts, a control centre posts what is missing."""
    op.create_table(
        "ledger",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cause", sa.Text, nullable=False, unique=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
    op.create_index("ledger_job", "ledger", ["job"])
    op.create_index("ledger_at_s", "ledger", ["at_s"])
    op.create_table(
        "postings",
        sa.Column("number", sa.Integer, sa.ForeignKey("ledger.number"), primary_key=True),
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("micro_usd", sa.BigInteger, nullable=False),
    )
    op.create_index("postings_account", "postings", ["account", "number"])


def downgrade() -> None:
    """Drop the ledger: it follows from the facts."""
    for table in ("postings", "ledger"):
        op.drop_table(table)
