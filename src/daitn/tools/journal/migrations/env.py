"""What Alembic runs: migrations on the connection that `SqlJournal` hands over."""

from alembic import context

from daitn.tools.journal.tables import METADATA

# One transaction for all: a process that dies in the middle leaves the schema that was there.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
