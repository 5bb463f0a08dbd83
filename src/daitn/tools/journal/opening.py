"""Opens a journal's database, migrates its schema, and explains what is wrong if it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, StorageFull, Unreachable
from daitn.tools.journal.silence import impatient
from daitn.tools.journal.tables import METADATA, SCHEMA

__all__ = ["SILENT_S", "check_database", "damaged", "open_database", "plain_errors"]

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_BUSY_S: Final = 10.0
"""How long SQLite waits while another process, for instance a backup, locks the database."""
_LIBPQ: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A server that vanishes silently is noticed within half a minute; the URL may override this. See
"Parameter Key Words" of libpq."""
SILENT_S: Final = 10.0
"""By default; a database operation waits this long for a silent server."""
_MIGRATING: Final = 0xDA17
"""PostgreSQL's number for the lock of whoever migrates a journal."""
_DAMAGED: Final = re.compile(
    r"malformed|not a database|no such (table|column)|(relation|column) \S+ does not exist"
)
"""What a driver says of a file that is no database, and of a table or column that is missing."""
_VERSION: Final = sa.table("alembic_version", sa.column("version_num", sa.String))


def open_database(url: str, silent_s: float = SILENT_S) -> sa.Engine:
    """Open a database and migrate it to the current schema. Raises `DaitnError` with the fix.

    `silent_s`: how long a database elsewhere may say nothing to a statement; a migration may take
    longer.
    """
    engine = _engine(url)
    try:
        with plain_errors(engine.url), engine.begin() as connection:
            _migrate(connection)
    except BaseException:
        engine.dispose()
        raise
    if engine.dialect.driver != "psycopg":
        return engine
    engine.dispose()
    engine = _engine(url, silent_s)
    connect = impatient(silent_s)

    @sa.event.listens_for(engine, "do_connect")
    def connecting(dialect: Any, record: Any, given: Any, named: Any) -> Any:
        return connect(*given, **named)

    return engine


def check_database(url: str) -> None:
    """Raise `DaitnError`, with the fix, unless a database can be written. Changes nothing, and
    migrates nothing."""
    engine = _engine(url)
    try:
        with plain_errors(engine.url), engine.begin() as connection:
            if _schema(connection) is not None:
                same = sa.update(_VERSION).values(version_num=_VERSION.c.version_num)
                connection.execute(same)
    finally:
        engine.dispose()


@contextmanager
def plain_errors(url: sa.URL) -> Iterator[None]:
    """Turn a database driver's errors into `DaitnError`s that name the fix.

    An `IntegrityError` passes through: it concerns rows, and the caller knows what it means.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise _explained(str(error.orig), url) from error


def _engine(url: str, silent_s: float = SILENT_S) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise _bad_url(f"{parsed.get_backend_name()} is not a supported database")
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise _bad_url("an SQLite database in memory is not durable")
        usual = {"connect_timeout": max(2, round(silent_s)), **_LIBPQ}  # libpq takes 2 s for 1.
        arguments = {name: value for name, value in usual.items() if name not in parsed.query}
        # A connection closed by the server meanwhile is reopened.
        engine = sa.create_engine(
            parsed,
            pool_pre_ping=parsed.get_backend_name() == "postgresql",
            connect_args=arguments if parsed.get_driver_name().startswith("psycopg") else {},
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise _bad_url(str(error)) from None
    except ImportError as error:
        name = parsed.get_driver_name()
        extra = "'daitn[postgresql]'" if name == "psycopg" else name
        raise InvalidInput(
            f"the driver {name} for this database cannot be used: {error}",
            field="database",
            fix=f"pip install {extra}",
        ) from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return engine


def _prepare_sqlite(engine: sa.Engine) -> None:
    """WAL, flushed at every commit.

    With `synchronous=NORMAL`, a power cut undoes the last commits. An event that the centre has
    acted on must not vanish, so it is FULL. Measured on ext4 in a virtual machine, an append takes
    4.0 ms instead of 0.3 ms (medians of 200); a job has some tens of them.
    """

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        # The driver would begin transactions late, and none before DDL.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={int(_BUSY_S * 1000)}",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        # Take the write lock first: upgrading a read transaction can fail, waiting does not.
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _migrate(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Without the lock, two processes that find no tables would both create them.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
    known = _schema(connection)
    if known == SCHEMA:
        # SQLite can begin a transaction on a read-only file; find out now.
        connection.execute(sa.update(_VERSION).values(version_num=known))
        return
    # Imported here: it takes 0.2 s, and a current schema does not need it.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise InvalidInput(
            f"the database has schema {known}, this version of daitn knows up to {SCHEMA}: {error}",
            field="database",
            fix="run the version of daitn that wrote it, or a later one",
        ) from None


def _schema(connection: sa.Connection) -> str | None:
    """The schema of a database; none if it is empty. Raises `Corrupt` if it has tables of a journal
    without saying which."""
    tables = set(sa.inspect(connection).get_table_names())
    known: Sequence[str] = ()
    if "alembic_version" in tables:
        known = connection.scalars(sa.select(_VERSION.c.version_num)).all()
    elif not tables.intersection(METADATA.tables):
        return None
    if len(known) != 1:
        names = ", ".join(map(str, known)) or "none"
        raise damaged(
            connection.engine.url, f"it has a journal's tables, but `alembic_version` names {names}"
        )
    return known[0]


def _bad_url(problem: str) -> InvalidInput:
    return InvalidInput(
        problem,
        field="database",
        fix="use sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME",
    )


def damaged(url: sa.URL, problem: str) -> Corrupt:
    """The error for a database that holds what no journal does."""
    return Corrupt(
        f"{url.render_as_string(hide_password=True)} is damaged or not a journal: {problem}",
        field="database",
        fix="restore it from a backup, or name another database",
    )


def _explained(problem: str, url: sa.URL) -> DaitnError:
    shown = url.render_as_string(hide_password=True)
    plain = problem.lower()
    if any(phrase in plain for phrase in ("full", "disk i/o", "no space left")):
        return StorageFull(
            f"{shown} has no room: {problem}",
            field="database",
            fix="free space on its disk; what was acknowledged is kept",
        )
    if _DAMAGED.search(plain):
        return damaged(url, problem)
    if any(phrase in plain for phrase in ("readonly", "read-only", "permission denied")):
        return InvalidInput(
            f"{shown} cannot be written: {problem}",
            field="database",
            fix="give this user write access to the file and its folder",
        )
    if "unable to open" in plain:
        return InvalidInput(
            f"{shown} cannot be opened: {problem}",
            field="database",
            fix="create the folder, and give this user write access to it",
        )
    return Unreachable(
        f"{shown} failed: {problem}",
        field="database",
        fix="check that the database is running, is not locked by another process, and admits "
        "this user",
    )
