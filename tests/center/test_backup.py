"""A control centre's backup is whole or not there, and a restore overwrites nothing."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from daitn.center.backup import back_up, checked_backup, restore
from daitn.center.config import CenterConfig
from daitn.files.lock import FolderLock
from daitn.objects.errors import Corrupt, InvalidInput, NotFound
from daitn.objects.identifiers import JobId
from daitn.tools.journal.sql import SqlJournal

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
    (state / "key").write_bytes(b"secret")
    (state / "key").chmod(0o600)
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
