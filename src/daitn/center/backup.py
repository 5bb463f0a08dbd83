"""Backs a control centre up while it runs, and restores it elsewhere.

::

    backup.json     what is in it, with digests; written last: without it a backup is not whole
    journal.db      jobs, models, deployments, grants, audit heads, as they stood at one moment
    state/          the state folder: key, roster, certificates, weights, releases

The journal is copied before the weights. Those that it names stay for as long as a job, a model or
a deployment needs them, and unneeded ones for a day more, so that a copy that takes less has all of
them. A backup holds the control centre's private key: whoever has it can speak as the control
centre.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from daitn import __version__
from daitn.center.config import CenterConfig
from daitn.files.atomic import PARTIAL, make_folder, put_in_place, replace_file, sync
from daitn.files.lock import FolderLock
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, StorageFull
from daitn.tools import clock
from daitn.tools.journal.copying import copy_journal, is_empty

__all__ = ["BackupContents", "back_up", "checked_backup", "restore"]

_CONTENTS, _JOURNAL, _STATE = "backup.json", "journal.db", "state"
_LEFT_OUT: Final = frozenset({"lock", "logs", "partial", "scratch"})
"""Of this process alone, or of no use to another one."""
_PIECE: Final = 1 << 20


class BackupContents(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    software: str
    """That made it; a later version restores it, an earlier one may not."""
    name: str
    """Of the control centre."""
    at_s: float
    """When the journal was copied. What was accepted later is not in it."""
    rows: int
    """Of the journal."""
    files: dict[str, str]
    """BLAKE3 digests by path within the backup."""


def back_up(config: CenterConfig, folder: Path) -> BackupContents:
    """Copy a control centre into a new folder, whether it runs or not.

    Raises `InvalidInput` if the folder is there already, `NotFound` if there is no control centre,
    `StorageFull`, and as `SqlJournal` does.
    """
    state = Path(config.state)
    if not (state / "key").exists():
        raise NotFound(
            f"there is no control centre in {state}",
            field="state",
            fix="name its file with -c, and run this where its state folder is",
        )
    if folder.exists():
        raise InvalidInput(
            f"{folder} is there already",
            field="FOLDER",
            fix="name a new folder: a backup is never written over another one",
        )
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial)
        partial.chmod(0o700)
        at_s = clock.wall_s()
        rows = copy_journal(_database(config), f"sqlite:///{partial / _JOURNAL}")
        _copy_state(config, partial / _STATE)
        contents = BackupContents(
            software=__version__,
            name=config.name,
            at_s=at_s,
            rows=rows,
            files={str(path.relative_to(partial)): _digest(path) for path in _files(partial)},
        )
        replace_file(partial / _CONTENTS, msgspec.json.format(msgspec.json.encode(contents)))
        put_in_place(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _unwritable(folder, error) from None
    return contents


def checked_backup(folder: Path) -> BackupContents:
    """What a backup holds. Raises `NotFound`, or `Corrupt` if a file is not as it was written."""
    try:
        contents = msgspec.json.decode((folder / _CONTENTS).read_bytes(), type=BackupContents)
    except FileNotFoundError:
        raise NotFound(
            f"there is no whole backup in {folder}",
            field="FOLDER",
            fix=f"name a folder that `daitn backup` made; it has {_CONTENTS}",
        ) from None
    except msgspec.DecodeError as error:
        raise _damaged(folder / _CONTENTS, str(error)) from None
    for name, digest in contents.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise _damaged(path, "it is missing")
        if _digest(path) != digest:
            raise _damaged(path, "its digest is another")
    return contents


def restore(config: CenterConfig, folder: Path) -> BackupContents:
    """Make a control centre of a backup, where its file says. It must not run.

    Raises `InvalidInput` if the state folder or the database holds anything, as `checked_backup`
    does, and `StorageFull`. Nothing is overwritten; what was begun and not ended is to be removed
    before another try.
    """
    contents = checked_backup(folder)
    state = Path(config.state)
    with FolderLock(state):
        if (found := sorted(path.name for path in state.iterdir() if path.name != "lock")) or (
            config.database and not is_empty(config.database)
        ):
            where = f"{state} holds {', '.join(found[:3])}" if found else "the database has entries"
            raise InvalidInput(
                f"{where}: nothing is overwritten",
                field="state" if found else "database",
                fix="name an empty state folder and database in the control centre's file, or "
                "move these away",
            )
        try:
            for name in contents.files:
                within = Path(name)
                if within.parts[0] == _STATE:
                    _copy(folder / within, state.joinpath(*within.parts[1:]))
            # Opening a database writes to it, and a backup stays as it is.
            read = state / _JOURNAL
            _copy(folder / _JOURNAL, read)
            copy_journal(f"sqlite:///{read}", _database(config))
            read.unlink()
        except OSError as error:
            raise _unwritable(state, error) from None
    return contents


def _database(config: CenterConfig) -> str:
    return config.database or f"sqlite:///{Path(config.state) / 'jobs.db'}"


def _copy_state(config: CenterConfig, target: Path) -> None:
    state = Path(config.state)
    for path in _files(state):
        within = path.relative_to(state)
        if not _LEFT_OUT.intersection(within.parts) and not within.name.startswith("jobs.db"):
            try:
                _copy(path, target / within)
            except FileNotFoundError:
                continue  # No longer needed, and deleted meanwhile.


def _copy(source: Path, target: Path) -> None:
    """A copy with its rights, on the disk."""
    make_folder(target.parent)
    shutil.copy2(source, target)
    sync(target)


def _files(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.endswith(PARTIAL)
    )


def _digest(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def _damaged(path: Path, why: str) -> Corrupt:
    return Corrupt(f"{path} is damaged: {why}", field=str(path), fix="take another backup")


def _unwritable(folder: Path, error: OSError) -> StorageFull:
    return StorageFull(
        f"{folder} cannot be written: {error.strerror}",
        field="FOLDER",
        fix="free room there, and check that this user may write it",
    )
