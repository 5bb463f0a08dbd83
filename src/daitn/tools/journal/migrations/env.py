"""Alembic's environment: migrations on the connection that `SqlJournal` hands over."""

from alembic import context

from daitn.tools.journal.tables import METADATA

# One transaction for all: a process that dies half-way leaves the old schema.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
