"""Which of the control centres that share this database leads, who stands by, and their blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, empty: the first control centre that names itself leads."""
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("replica", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("seen_s", sa.Double, nullable=False),
        sa.Column("endpoints", sa.Text, nullable=False),
        sa.Column("software", sa.Text, nullable=False),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop who leads and what owners brought: a control centre that is alone does, and has it."""
    for table in ("blobs", "replicas", "leadership"):
        op.drop_table(table)
