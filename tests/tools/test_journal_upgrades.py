"""A database of every earlier schema is brought up to date, and today's code reads what is in it.

`recorded/journal-REVISION.bin` is what the code of that revision wrote of one job that reached its
targets: its facts, its entries in the ledger and its model, as a compressed MessagePack map
(`e68b9f83` for 0001, `189b997e` for 0002). A revision that changed no format has none: the one
before it wrote the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

import daitn.tools.journal as journal_package
from daitn.center.jobs import JobService
from daitn.control.jobs.commands import Command
from daitn.control.jobs.job import Job
from daitn.objects.accounts import LedgerEntry, LedgerQuestion
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobState
from daitn.objects.wire import decode
from daitn.tools.journal.copying import copy_journal
from daitn.tools.journal.ledger import post
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.journal.tables import SCHEMA
from tests.scenes.postgres import postgres_server

QA = JobId("qa-1")
RECORDED = Path(__file__).parent / "recorded"
MIGRATIONS = Path(str(journal_package.__file__)).parent / "migrations"


class Written(msgspec.Struct, frozen=True):
    """What a release wrote of one job."""

    facts: list[bytes]
    entries: list[bytes]
    model: bytes


def migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def revisions() -> list[str]:
    """All, the oldest first."""
    walked = ScriptDirectory.from_config(migrations()).walk_revisions()
    return [script.revision for script in walked][::-1]


def written_by(revision: str) -> Written:
    """What code of a revision wrote, or of the last one before it that changed a format."""
    until = revisions()[: revisions().index(revision) + 1]
    names = [RECORDED / f"journal-{one}.bin" for one in until]
    newest = [path for path in names if path.exists()][-1]
    return msgspec.msgpack.decode(zlib.decompress(newest.read_bytes()), type=Written)


def fill(url: str, revision: str) -> None:
    """Make the database as code of that revision did, with all that its schema has room for."""
    config, wrote = migrations(), written_by(revision)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        known = sa.MetaData()
        known.reflect(connection)
        jobs, events, records = (known.tables[one] for one in ("jobs", "events", "records"))
        ids = {
            name: connection.scalar(sa.insert(jobs).values(job=name).returning(jobs.c.id))
            for name in ("odd-1", QA)
        }
        rows = [
            {"job_id": ids[QA], "seq": seq, "at_s": 1.7e9 + seq, "event": fact}
            for seq, fact in enumerate(wrote.facts, 1)
        ]
        # Of one job that nobody can read any more.
        rows.append({"job_id": ids["odd-1"], "seq": 1, "at_s": 1.7e9, "event": b"\xc1"})
        connection.execute(sa.insert(events), rows)
        kinds = [("model", QA, wrote.model), ("site-key", "north", b"ed25519:abc")]
        connection.execute(
            sa.insert(records),
            [{"kind": kind, "name": name, "value": value} for kind, name, value in kinds],
        )
        if "ledger" in known.tables:
            post(connection, [decode(one, LedgerEntry) for one in wrote.entries])
    engine.dispose()


@pytest.fixture(scope="module")
def postgres_database() -> Iterator[Callable[[], str]]:
    with postgres_server() as server:
        yield server.database


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    database: Callable[[], str] = request.getfixturevalue("postgres_database")
    return database()


async def nothing(job: Job, command: Command) -> None:
    """No site is asked."""


@pytest.mark.parametrize("revision", revisions())
async def test_what_a_release_of_any_schema_stored_is_read(url: str, revision: str) -> None:
    fill(url, revision)
    wrote = written_by(revision)
    with closing(SqlJournal(url)) as journal:
        assert journal.events(QA) == tuple(wrote.facts)
        assert journal.counts() == {"odd-1": 1, QA: len(wrote.facts)}
        assert journal.get("site-key", "north") == b"ed25519:abc"
        assert decode(journal.all("model")[QA], ModelDescriptor).name == QA
        for turn in range(2):  # The second one reads what the first one made of it.
            jobs = JobService(journal, nothing, lambda shown: None)
            jobs.start()
            jobs.settled(jobs.unsettled())
            assert [*jobs.before(None)] == [QA], turn
            assert jobs.state(QA) is JobState.REACHED
            job = jobs.get(QA)
            assert (len(job.made), len(jobs.decisions(QA))) == (4, 5)
            assert jobs.new_id("odd") == "odd-2"
            # What an earlier version had no ledger for is posted, and nothing is twice.
            entries = [line.entry for line in journal.ledger(LedgerQuestion())]
            posted = {one.cause: one.postings for one in entries}
            assert posted == {one.cause: one.postings for one in job.entries}
            assert len(entries) == len(job.entries)
            await jobs.close()


@pytest.mark.parametrize("revision", revisions())
def test_an_upgraded_database_can_be_backed_up_and_written(
    url: str, revision: str, tmp_path: Path
) -> None:
    fill(url, revision)
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert copy_journal(url, copy) >= len(written_by(revision).facts)
    for one in (url, copy):
        with closing(SqlJournal(one)) as journal:
            seq = len(journal.events(QA))
            assert journal.append(QA, seq, [b"later"], 2e9) == seq + 1
            assert journal.append(JobId("new-1"), 0, [b"first"], 2e9) == 1
            assert journal.jobs() == ("odd-1", QA, "new-1")


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_an_upgrade_that_does_not_come_to_its_end_changes_nothing(
    url: str, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All revisions up to the newest are one transaction."""
    fill(url, revision)
    upgrade = command.upgrade

    def dies(config: Config, to: str) -> None:
        upgrade(config, to)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", dies)
        with pytest.raises(KeyboardInterrupt):
            SqlJournal(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        version = sa.text("SELECT version_num FROM alembic_version")
        assert connection.scalar(version) == revision
    engine.dispose()
    with closing(SqlJournal(url)) as journal:
        assert journal.events(QA) == tuple(written_by(revision).facts)


def test_every_revision_follows_the_one_before_and_the_newest_is_what_code_expects() -> None:
    scripts = ScriptDirectory.from_config(migrations())
    assert scripts.get_current_head() == SCHEMA == revisions()[-1]
    assert [scripts.get_revision(one).down_revision for one in revisions()] == [
        None,
        *revisions()[:-1],
    ]
