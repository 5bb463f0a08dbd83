"""Both journals keep what they acknowledged, in order; the one on disk through any crash."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import daitn.tools.journal as store_package
from daitn.control.accounting.amounts import transfer
from daitn.objects.accounts import EntryKind, LedgerEntry, LedgerQuestion, chained
from daitn.objects.audit import START
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    InvalidInput,
    StaleAppend,
    StorageFull,
    Unreachable,
)
from daitn.objects.identifiers import JobId
from daitn.tools.journal import silence
from daitn.tools.journal.copying import copy_journal
from daitn.tools.journal.memory import MemoryJournal
from daitn.tools.journal.protocol import Journal
from daitn.tools.journal.shared import SHARED
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.journal.tables import METADATA, SCHEMA
from tests.scenes.postgres import PostgresServer, postgres_server

A, B = JobId("job-a"), JobId("job-b")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["SQLite", "memory", "PostgreSQL"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    opened: Journal
    match request.param:
        case "SQLite":
            opened = SqlJournal(f"sqlite:///{tmp_path / 'jobs.db'}")
        case "memory":
            opened = MemoryJournal()
        case _:
            opened = SqlJournal(request.getfixturevalue("postgres").database())
    yield opened
    opened.close()


def test_events_come_back_in_order_per_job(journal: Journal) -> None:
    assert journal.append(A, 0, [b"1", b""], 1.0) == 2
    assert journal.append(B, 0, [b"other"], 2.0) == 1
    assert journal.append(A, 2, [b"\x00\xff"], 3.0) == 3
    assert journal.events(A) == (b"1", b"", b"\x00\xff")
    assert journal.events(B) == (b"other",)
    assert journal.events(JobId("unknown")) == ()


def test_a_copy_holds_what_was_there_at_one_moment_while_others_write(tmp_path: Path) -> None:
    """A record says how many events each job has, in the same transaction order as they came."""
    source, target = f"sqlite:///{tmp_path / 'jobs.db'}", f"sqlite:///{tmp_path / 'copy.db'}"
    journal = SqlJournal(source)
    ended = False

    def write() -> int:
        count = 0
        while not ended:
            journal.append(A, count, [b"x"], 1.0)
            count += 1
            journal.put("count", "a", str(count).encode())
        return count

    journal.append(B, 0, [b"\x00", b""], 1.0)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while len(journal.events(A)) < 20:
            pass
        copy_journal(source, target)
        ended = True
        assert writing.result() >= 20
    copied = SqlJournal(target)
    assert copied.events(B) == (b"\x00", b"")
    assert set(copied.jobs()) == {A, B}
    counted = int(copied.get("count", "a") or b"0")
    assert len(copied.events(A)) - counted in (0, 1)
    copied.append(JobId("next"), 0, [b"1"], 1.0)  # Numbers go on behind those that were copied.
    with pytest.raises(InvalidInput, match="holds jobs or records"):
        copy_journal(source, target)
    journal.close()
    copied.close()


def test_a_journal_moves_from_and_to_postgres(tmp_path: Path, postgres: PostgresServer) -> None:
    source, target = postgres.database(), postgres.database()
    with closing(SqlJournal(source)) as journal:
        journal.append(A, 0, [b"1", b"2"], 1.0)
        journal.put("model", "a", b"\x00\xff")
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert copy_journal(source, copy) == 4
    with closing(SqlJournal(target)) as journal:
        assert copy_journal(copy, target) == 4
        journal.append(B, 0, [b"x"], 1.0)
        assert (journal.events(A), journal.jobs()) == ((b"1", b"2"), (A, B))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_postgres_acknowledged_outlives_its_restart_and_so_does_its_client(
    postgres: PostgresServer, end: str
) -> None:
    with closing(SqlJournal(postgres.database())) as journal:
        journal.append(A, 0, [b"1"], 1.0)
        getattr(postgres, end)()
        try:
            with pytest.raises(Unreachable, match="failed"):
                journal.append(A, 1, [b"2"], 2.0)
        finally:
            postgres.start()
        assert journal.events(A) == (b"1",)
        journal.append(A, 1, [b"2"], 2.0)
        getattr(postgres, end)()
        postgres.start()  # Before anybody has noticed.
        journal.append(A, 2, [b"3"], 3.0)
        assert journal.events(A) == (b"1", b"2", b"3")


def test_a_database_that_stands_still_is_no_reason_to_wait_for_ever(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that runs ahead meanwhile: else the database may be as slow as the machine is."""
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr(silence, "time", clock)
    url = postgres.database() + "&connect_timeout=5"
    with closing(SqlJournal(url, silent_s=500.0)) as journal:
        journal.append(A, 0, [b"1"], 1.0)
        clock.monotonic = lambda: 1000.0 * time.monotonic()
        with postgres.standing_still(), pytest.raises(Unreachable, match="failed"):
            journal.append(A, 1, [b"2"], 2.0)
        clock.monotonic = time.monotonic
        # Of the first, nobody knows whether it was done; asking again tells.
        count = len(journal.events(A))
        assert journal.append(A, count, [b"3"], 3.0) == count + 1


def test_jobs_are_listed_in_order_of_creation(journal: Journal) -> None:
    names = [JobId(name) for name in ("z", "a", "m", "b")]
    for name in names:
        journal.append(name, 0, [b"made"], 1.0)
    journal.append(names[0], 1, [b"later"], 2.0)
    assert journal.jobs() == tuple(names)


@pytest.mark.parametrize("expected_seq", [0, 1, 3])
def test_a_writer_that_is_behind_or_ahead_is_told_and_adds_nothing(
    journal: Journal, expected_seq: int
) -> None:
    journal.append(A, 0, [b"1", b"2"], 1.0)
    with pytest.raises(
        StaleAppend, match=f"job-a has 2 events, its writer expected {expected_seq}"
    ):
        journal.append(A, expected_seq, [b"3"], 2.0)
    assert journal.events(A) == (b"1", b"2")


def test_a_job_that_nobody_made_cannot_be_continued(journal: Journal) -> None:
    with pytest.raises(StaleAppend, match="has 0 events"):
        journal.append(A, 1, [b"x"], 1.0)
    assert journal.jobs() == ()


def test_adding_nothing_makes_no_job(journal: Journal) -> None:
    assert journal.append(A, 0, [], 1.0) == 0
    assert journal.jobs() == ()
    with pytest.raises(ValueError, match="expected_seq"):
        journal.append(A, -1, [], 1.0)


def entry(cause: str, micro_usd: int = 5, job: str = "", at_s: float = 1.0) -> LedgerEntry:
    postings = transfer("owner/ann", f"site/{cause[0]}", micro_usd)
    return LedgerEntry(cause=cause, at_s=at_s, kind=EntryKind.VISIT, postings=postings, job=job)


def test_events_and_what_they_cost_are_written_together_or_not_at_all(journal: Journal) -> None:
    journal.append(A, 0, [b"1"], 1.0, [entry("a/1", job=A)])
    with pytest.raises(StaleAppend):
        journal.append(A, 0, [b"2"], 2.0, [entry("b/2", job=A)])
    assert [line.entry.cause for line in journal.ledger(LedgerQuestion())] == ["a/1"]
    journal.append(B, 0, [b"1"], 2.0, [entry("b/1", 7, job=B), entry("a/2", job=B)])
    assert journal.posted() == {A: 1, B: 2}
    assert journal.accounts() == {"owner/ann": -17, "site/a": 10, "site/b": 7}


def test_a_cause_is_posted_once_and_records_are_put_with_entries(journal: Journal) -> None:
    assert journal.ledger_head() is None
    journal.post([entry("a"), entry("a", 9), entry("b")], {("kind", "name"): b"1"})
    journal.post([entry("b", 9), entry("c")], {("kind", "name"): b"2"})
    lines = journal.ledger(LedgerQuestion())
    assert [(line.number, line.entry) for line in lines] == [
        (1, entry("a")),
        (2, entry("b")),
        (3, entry("c")),
    ]
    digest = START
    for line in lines:
        digest = chained(digest, line.entry)
        assert line.digest == digest
    assert journal.ledger_head() == lines[-1]
    assert journal.get("kind", "name") == b"2"


def test_entries_are_found_by_account_and_time_a_page_at_a_time(journal: Journal) -> None:
    journal.post([entry(f"{'ab'[n % 2]}{n}", at_s=float(n)) for n in range(10)])

    def causes(question: LedgerQuestion) -> list[str]:
        return [line.entry.cause for line in journal.ledger(question)]

    assert causes(LedgerQuestion(accounts=("site/a",))) == ["a0", "a2", "a4", "a6", "a8"]
    assert causes(LedgerQuestion(accounts=("site/a",), from_s=2.0, to_s=6.0)) == ["a2", "a4"]
    assert causes(LedgerQuestion(accounts=("site/a",), after=3, limit=2)) == ["a4", "a6"]
    assert causes(LedgerQuestion(accounts=())) == []


def test_of_two_writers_exactly_one_adds_each_event(journal: Journal) -> None:
    def write(writer: int) -> list[bytes]:
        added = []
        for n in range(30):
            event = f"{writer}-{n}".encode()
            try:
                journal.append(A, len(journal.events(A)), [event], 1.0)
            except StaleAppend:
                continue
            added.append(event)
        return added

    with ThreadPoolExecutor(2) as pool:
        added = [event for events in pool.map(write, range(2)) for event in events]
    events = journal.events(A)
    assert sorted(events) == sorted(added)
    assert len(events) >= 30


def test_records_are_replaced_and_kept_by_kind(journal: Journal) -> None:
    journal.put("node", "b", b"old")
    journal.put("node", "b", b"new")
    journal.put("node", "a", b"")
    journal.put("key", "b", b"secret")
    assert journal.get("node", "b") == b"new"
    assert journal.get("node", "a") == b""
    assert journal.get("node", "c") is None
    assert list(journal.all("node").items()) == [("a", b""), ("b", b"new")]
    assert journal.all("nothing") == {}


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def test_all_is_there_after_opening_again(tmp_path: Path) -> None:
    journal = SqlJournal(url_of(tmp_path / "jobs.db"))
    journal.append(A, 0, [b"1"], 1.0)
    journal.put("node", "a", b"x")
    journal.close()
    again = SqlJournal(url_of(tmp_path / "jobs.db"))
    assert (again.jobs(), again.events(A), again.get("node", "a")) == ((A,), (b"1",), b"x")
    assert again.append(A, 1, [b"2"], 2.0) == 2
    again.close()


def test_commits_are_flushed_to_the_disk(tmp_path: Path) -> None:
    journal = SqlJournal(url_of(tmp_path / "jobs.db"))
    with journal._engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    journal.close()


WRITER = """
import itertools, sys
from daitn.tools.journal.sql import SqlJournal
journal = SqlJournal(sys.argv[1])
seq = 0
for n in itertools.count():
    seq = journal.append("job-a", seq, [b"%d" % (seq + i) for i in range(1 + n % 3)], 1.0)
    print(seq, flush=True)
"""


@pytest.mark.processes
def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    acknowledged = 0
    for _ in range(2):
        path.unlink(missing_ok=True)
        command = [sys.executable, "-c", WRITER, url_of(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(25):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            for line in writer.stdout:
                if line.endswith("\n"):
                    acknowledged = int(line)
        journal = SqlJournal(url_of(path))
        events = journal.events(A)
        assert len(events) >= acknowledged >= 25
        assert events == tuple(b"%d" % n for n in range(len(events)))
        assert journal.append(A, len(events), [b"on"], 2.0) == len(events) + 1
        journal.close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for left in tmp_path.iterdir():
            left.unlink()


def test_the_migrations_lead_to_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    journal = SqlJournal(url_of(tmp_path / "jobs.db"))
    with journal._engine.begin() as connection:
        tables: Any = [METADATA, SHARED]
        assert compare_metadata(MigrationContext.configure(connection), tables) == []
    journal.close()
    config = Config()
    config.set_main_option(
        "script_location", str(Path(str(store_package.__file__)).parent / "migrations")
    )
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA


@pytest.mark.processes
def test_a_current_database_opens_without_the_migration_engine(tmp_path: Path) -> None:
    url = url_of(tmp_path / "jobs.db")
    SqlJournal(url).close()
    program = (
        "import sys\n"
        "from daitn.tools.journal.sql import SqlJournal\n"
        "SqlJournal(sys.argv[1]).close()\n"
        "print('alembic' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


def newer(folder: Path) -> str:
    path = folder / "jobs.db"
    SqlJournal(url_of(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return url_of(path)


def no_database(folder: Path) -> str:
    (folder / "jobs.db").write_bytes(b"these are my notes, not a database" * 100)
    return url_of(folder / "jobs.db")


def no_folder(folder: Path) -> str:
    return url_of(folder / "absent" / "jobs.db")


def read_only(folder: Path) -> str:
    SqlJournal(url_of(folder / "jobs.db")).close()
    return f"sqlite:///file:{folder / 'jobs.db'}?mode=ro&uri=true"


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (newer, InvalidInput, "schema 9999.*later one"),
        (no_database, Corrupt, "damaged or not a journal.*backup"),
        (no_folder, InvalidInput, "cannot be opened.*create the folder"),
        (read_only, InvalidInput, "cannot be written.*write access"),
        (lambda folder: "sqlite://", InvalidInput, "not durable.*sqlite:///PATH"),
        (lambda folder: "mysql://x/y", InvalidInput, "mysql is not a supported database"),
        (lambda folder: "nonsense", InvalidInput, "use sqlite:///PATH"),
        (lambda folder: "postgresql+pg8000://x/y", InvalidInput, "driver pg8000.*pip install"),
    ],
)
def test_a_database_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, made: Callable[[Path], str], error: type[DaitnError], said: str
) -> None:
    with pytest.raises(error, match=f"(?s){said}") as raised:
        SqlJournal(made(tmp_path))
    assert raised.value.field == "database"
    assert raised.value.fix


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM events WHERE seq = 2", "of job-a, the event 2 is missing"),
        ("UPDATE events SET seq = 102 WHERE seq = 2", "of job-a, the event 2 is missing"),
        ("UPDATE events SET seq = 0 WHERE seq = 1", "of job-a, the event 1 is missing"),
        ("UPDATE events SET event = 'text' WHERE seq = 2", "'text', where bytes belong"),
        ("UPDATE events SET event = 7 WHERE seq = 2", "7, where bytes belong"),
        ("UPDATE records SET value = 'text'", "'text', where bytes belong"),
        ("UPDATE ledger SET entry = 'text'", "'text', where bytes belong"),
        ("UPDATE ledger SET entry = x'00'", "the ledger's entry 1 is damaged"),
        ("DROP TABLE records", "no such table: records"),
        ("INSERT INTO alembic_version VALUES ('0002')", "`alembic_version` names 0003, 0002"),
        ("DELETE FROM alembic_version", "`alembic_version` names none"),
        ("DROP TABLE alembic_version", "`alembic_version` names none"),
    ],
)
def test_a_damaged_database_says_what_is_damaged(tmp_path: Path, damage: str, words: str) -> None:
    path = tmp_path / "jobs.db"
    journal = SqlJournal(url_of(path))
    journal.append(A, 0, [b"1", b"2", b"3"], 1.0, [entry("visit/1")])
    journal.put("model", "a", b"record")
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(damage)
        connection.commit()

    with pytest.raises(Corrupt) as raised:
        read_all(url_of(path))

    assert words in raised.value.problem
    assert raised.value.field == "database"
    assert "backup" in raised.value.fix


def read_all(url: str) -> None:
    journal = SqlJournal(url)
    try:
        journal.counts(), journal.events(A), journal.all("model")
        journal.ledger(LedgerQuestion())
    finally:
        journal.close()


def test_a_newer_database_is_left_as_it_is(tmp_path: Path) -> None:
    url = newer(tmp_path)
    with pytest.raises(InvalidInput):
        SqlJournal(url)
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert found == [("9999",)]


def test_a_password_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(DaitnError) as raised:
        SqlJournal("postgresql+psycopg://me:hunter2@127.0.0.1:1/x?connect_timeout=2")
    assert "hunter2" not in str(raised.value)
    assert isinstance(raised.value, InvalidInput | Unreachable)


@pytest.mark.processes
def test_a_full_disk_refuses_the_event_and_keeps_the_earlier_ones(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        journal = SqlJournal(url_of(disk / "jobs.db"))
        seq = 0

        def fill() -> None:
            nonlocal seq
            for _ in range(100):
                seq = journal.append(A, seq, [b"x" * 20_000], 1.0)

        with pytest.raises(StorageFull, match="no room"):
            fill()
        assert 0 < seq < 100
        assert len(journal.events(A)) == seq
        journal.close()
        again = SqlJournal(url_of(disk / "jobs.db"))
        assert again.events(A) == (b"x" * 20_000,) * seq
        again.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
