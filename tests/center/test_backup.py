"""A control centre's backup is whole or not there, and a restore overwrites nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from daitn.center.backup import back_up, checked_backup, restore
from daitn.center.config import CenterConfig
from daitn.center.database_owner import claim_database
from daitn.files.lock import FolderLock
from daitn.identity.keys import SigningKey
from daitn.oam.doctor.diagnoses import Level
from daitn.oam.doctor.state import check_state, running
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, StorageFull
from daitn.objects.identifiers import JobId
from daitn.tools.journal.sql import SqlJournal
from tests.scenes.postgres import postgres_server

JOB = JobId("doctor-1")


def config(folder: Path) -> CenterConfig:
    return CenterConfig(state=str(folder), insecure=True)


@pytest.fixture
def center(tmp_path: Path) -> CenterConfig:
    """What a control centre leaves on its disk, which runs: it holds its lock."""
    state = tmp_path / "center"
    blobs = state / "models" / "blobs" / "ab"
    blobs.mkdir(parents=True)
    (blobs / "cdef").write_bytes(b"weights" * 1000)
    (state / "models" / "partial").mkdir()
    (state / "models" / "partial" / "1").write_bytes(b"half")
    SigningKey.at(state / "key")
    (state / "releases").write_text("{}")
    journal = SqlJournal(f"sqlite:///{state / 'jobs.db'}")
    journal.append(JOB, 0, [b"submitted", b"planned"], 1.0)
    journal.put("model", "doctor-1", b"\x00\xff")
    journal.close()
    return config(state)


def test_what_is_backed_up_comes_back(center: CenterConfig, tmp_path: Path) -> None:
    with FolderLock(Path(center.state)):
        made = back_up(center, tmp_path / "backup")
    assert checked_backup(tmp_path / "backup") == made
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    restored = config(tmp_path / "elsewhere" / "center")
    for target in (restored, config(tmp_path / "another")):  # A backup stays as it is.
        assert restore(target, tmp_path / "backup") == made
    state = Path(restored.state)
    assert (state / "models" / "blobs" / "ab" / "cdef").read_bytes() == b"weights" * 1000
    assert stat.S_IMODE((state / "key").stat().st_mode) == 0o600
    assert not (state / "models" / "partial").exists()
    assert {path.name for path in state.iterdir()} == {
        "key", "lock", "models", "releases", "jobs.db"
    }  # fmt: skip
    journal = SqlJournal(f"sqlite:///{state / 'jobs.db'}")
    assert journal.events(JOB) == (b"submitted", b"planned")
    assert journal.get("model", "doctor-1") == b"\x00\xff"
    journal.close()


def test_nothing_is_overwritten(center: CenterConfig, tmp_path: Path) -> None:
    back_up(center, tmp_path / "backup")
    with pytest.raises(InvalidInput, match="already exists"):
        back_up(center, tmp_path / "backup")
    with pytest.raises(InvalidInput, match="nothing is overwritten"):
        restore(center, tmp_path / "backup")
    empty = tmp_path / "empty"
    with FolderLock(empty), pytest.raises(InvalidInput, match="another process uses"):
        restore(config(empty), tmp_path / "backup")
    full = f"sqlite:///{tmp_path / 'center' / 'jobs.db'}"
    other = CenterConfig(state=str(tmp_path / "fresh"), insecure=True, database=full)
    with pytest.raises(InvalidInput, match="the database has entries"):
        restore(other, tmp_path / "backup")


def test_a_backup_holds_no_other_backup(center: CenterConfig, tmp_path: Path) -> None:
    state = Path(center.state)
    (tmp_path / "link").symlink_to(state / "models")
    for folder in (state / "backup", state / "models" / "b", tmp_path / "link" / "b"):
        with pytest.raises(InvalidInput, match="in the state folder"):
            back_up(center, folder)
        assert not folder.exists()


def test_what_is_restored_is_its_user_s_alone(center: CenterConfig, tmp_path: Path) -> None:
    back_up(center, tmp_path / "backup")
    restore(config(tmp_path / "restored"), tmp_path / "backup")
    for path in (tmp_path / "restored", tmp_path / "restored" / "jobs.db"):
        assert not path.stat().st_mode & 0o077, path


def test_a_damaged_backup_is_told_before_anything_is_restored(
    center: CenterConfig, tmp_path: Path
) -> None:
    back_up(center, tmp_path / "backup")
    with pytest.raises(NotFound, match="no complete backup"):
        checked_backup(tmp_path / "nowhere")
    for name in ("state/models/blobs/ab/cdef", "journal.db"):
        damaged = tmp_path / "damaged"
        shutil.copytree(tmp_path / "backup", damaged)
        with (damaged / name).open("r+b") as file:
            file.seek(40)
            file.write(b"\x01\x02\x03")
        with pytest.raises(Corrupt, match="its digest is another"):
            restore(config(tmp_path / "target"), damaged)
        assert not (tmp_path / "target").exists()
        shutil.rmtree(damaged)
    (tmp_path / "backup" / "state" / "key").unlink()
    with pytest.raises(Corrupt, match="it is missing"):
        checked_backup(tmp_path / "backup")


def test_there_has_to_be_a_control_centre(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no control centre"):
        back_up(config(tmp_path / "nothing"), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def altered(backup: Path, to: Path, **changes: Any) -> Path:
    """A copy of a backup with other contents listed, and digests as they are."""
    shutil.copytree(backup, to)
    listed = msgspec.json.decode((to / "backup.json").read_bytes())
    for name in listed["files"]:
        if (to / name).is_file():
            listed["files"][name] = blake3((to / name).read_bytes()).hexdigest()
    for field, value in changes.items():
        listed[field] = listed[field] | value if isinstance(value, dict) else value
    (to / "backup.json").write_bytes(msgspec.json.encode(listed))
    return to


def of_later_schema(backup: Path) -> None:
    with contextlib.closing(sqlite3.connect(backup / "journal.db")) as database:
        database.execute("update alembic_version set version_num = '0099'")
        database.commit()


def test_nothing_is_left_of_a_restore_that_fails(
    center: CenterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = back_up(center, tmp_path / "backup")
    target = config(tmp_path / "target")
    of_later_schema(tmp_path / "backup")
    with pytest.raises(InvalidInput, match="schema 0099"):
        restore(target, altered(tmp_path / "backup", tmp_path / "later"))
    shutil.rmtree(tmp_path / "backup")
    back_up(center, tmp_path / "backup")
    real, left = shutil.copy2, [2]

    def full(source: Path, to: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
        real(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", full)
        with pytest.raises(StorageFull, match="No space left"):
            restore(target, tmp_path / "backup")

    assert [path.name for path in (tmp_path / "target").iterdir()] == ["lock"]
    assert restore(target, tmp_path / "backup").files.keys() == made.files.keys()


def test_no_process_starts_with_a_folder_whose_restore_was_killed(
    center: CenterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(center, tmp_path / "backup")
    target = config(tmp_path / "target")
    if os.fork() == 0:
        monkeypatch.setattr(shutil, "copy2", lambda source, to: os._exit(9))
        restore(target, tmp_path / "backup")
    os.wait()

    with pytest.raises(InvalidInput, match="did not end") as refused:
        FolderLock(Path(target.state))
    assert "daitn restore" in refused.value.fix
    (told,) = check_state("center", target)
    assert (told.level, "did not end" in told.what) == (Level.PROBLEM, True)
    assert not running(target)
    with pytest.raises(NotFound, match="no control centre"):
        back_up(target, tmp_path / "another")
    restore(target, tmp_path / "backup")
    with FolderLock(Path(target.state)):
        assert SigningKey.at(tmp_path / "target" / "key").public == key_of(center)


def key_of(center: CenterConfig) -> str:
    return SigningKey.at(Path(center.state) / "key").public


def test_what_lies_on_another_disk_is_backed_up_too(center: CenterConfig, tmp_path: Path) -> None:
    state, disk = Path(center.state), tmp_path / "disk"
    disk.mkdir()
    for name in ("models", "key"):
        (state / name).rename(disk / name)
        (state / name).symlink_to(disk / name)
    (state / "loop").symlink_to(state)
    (state / "a").mkdir()
    (state / "a" / "link").symlink_to(disk / "models")

    made = back_up(center, disk / "models" / "backup")

    blob = "blobs/ab/cdef"
    assert {"state/key", f"state/models/{blob}", f"state/a/link/{blob}"} < made.files.keys()
    assert not any("loop" in name or "backup" in name for name in made.files)
    (state / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"gone leads to .*nowhere"):
        back_up(center, tmp_path / "again")
    assert not list(tmp_path.glob("again*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"software": "99.0"}, "made by daitn 99.0"),
        ({"name": "other"}, "a backup of the control centre other"),
        ({"rows": -5}, "rows instead of -5"),
        ({"files": {"state/../evil": "0" * 64}}, "not in the state folder"),
        ({"files": {"/etc/passwd": "0" * 64}}, "not in the state folder"),
        ({"files": {"jobs.db": "0" * 64}}, "not in the state folder"),
        ({"files": {"state/": "0" * 64}}, "not in the state folder"),
        ({"files": None}, "backup.json is damaged"),
    ],
)
def test_a_backup_that_lists_what_cannot_be_is_refused(
    center: CenterConfig, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    back_up(center, tmp_path / "backup")
    crafted = altered(tmp_path / "backup", tmp_path / "crafted", **changes)
    with pytest.raises(DaitnError, match=words):
        restore(config(tmp_path / "target"), crafted)
    left = [path.name for path in tmp_path.glob("target/*")]
    assert left in ([], ["lock"])


@pytest.mark.parametrize("missing", ["state/key", "journal.db"])
def test_a_backup_without_its_key_or_its_journal_is_refused(
    center: CenterConfig, tmp_path: Path, missing: str
) -> None:
    back_up(center, tmp_path / "backup")
    listed = msgspec.json.decode((tmp_path / "backup" / "backup.json").read_bytes())
    del listed["files"][missing]
    (tmp_path / "backup" / "backup.json").write_bytes(msgspec.json.encode(listed))
    (tmp_path / "backup" / missing).unlink()
    with pytest.raises(Corrupt, match=f"does not list {missing}"):
        restore(config(tmp_path / "target"), tmp_path / "backup")


@pytest.mark.parametrize("text", [b"", b'{"software": "\xff"}', b"[" * 100_000, b"{}"])
def test_a_list_of_contents_that_cannot_be_read_is_named(
    center: CenterConfig, tmp_path: Path, text: bytes
) -> None:
    back_up(center, tmp_path / "backup")
    (tmp_path / "backup" / "backup.json").write_bytes(text)
    with pytest.raises(Corrupt, match=r"backup\.json is damaged"):
        restore(config(tmp_path / "target"), tmp_path / "backup")


def test_a_database_is_of_one_control_centre(center: CenterConfig, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    for _ in range(2):
        claim_database(msgspec.structs.replace(center, database=url))
    SigningKey.at(tmp_path / "other" / "key")
    with pytest.raises(InvalidInput, match="belongs to the control centre center with") as refused:
        claim_database(msgspec.structs.replace(config(tmp_path / "other"), database=url))
    assert refused.value.field == "database"


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_a_backup_moves_to_a_database_that_the_file_names(
    center: CenterConfig, tmp_path: Path, kind: str
) -> None:
    back_up(center, tmp_path / "backup")
    with contextlib.ExitStack() as servers:
        url = f"sqlite:///{tmp_path / 'named.db'}"
        if kind == "PostgreSQL":
            url = servers.enter_context(postgres_server()).database()
        target = msgspec.structs.replace(config(tmp_path / "target"), database=url)
        with pytest.raises(Corrupt, match="rows instead of 7"):
            restore(target, altered(tmp_path / "backup", tmp_path / "crafted", rows=7))
        restore(target, tmp_path / "backup")
        claim_database(target)
        journal = SqlJournal(url)
        assert journal.events(JOB) == (b"submitted", b"planned")
        journal.close()
        SigningKey.at(tmp_path / "other" / "key")
        with pytest.raises(InvalidInput, match="belongs to the control centre"):
            claim_database(msgspec.structs.replace(target, state=str(tmp_path / "other")))


def test_a_replica_is_restored_only_to_the_database_of_its_network(
    center: CenterConfig, tmp_path: Path
) -> None:
    back_up(center, tmp_path / "backup")
    SigningKey.at(tmp_path / "other" / "key")
    with postgres_server() as server:
        theirs, ours = server.database(), server.database()
        for url, owner in ((theirs, config(tmp_path / "other")), (ours, center)):
            claim_database(msgspec.structs.replace(owner, database=url))
        target = CenterConfig(state=str(tmp_path / "d"), insecure=True, replica="d")
        with pytest.raises(InvalidInput, match="belongs to the control centre"):
            restore(msgspec.structs.replace(target, database=theirs), tmp_path / "backup")
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["lock"]
        restore(msgspec.structs.replace(target, database=ours), tmp_path / "backup")
        assert key_of(target) == key_of(center)
