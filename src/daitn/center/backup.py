"""Backs a control centre up while it runs, and restores it elsewhere.

::

    backup.json     what is in it, with digests; written last: without it a backup is not whole
    journal.db      jobs, models, deployments, grants, audit heads, as they stood at one moment
    state/          the state folder: key, roster, certificates, weights, releases; of control
                    centres that share a database, the weights and releases of all

The journal is copied before the weights. Those that it names stay for as long as a job, a model or
a deployment needs them, and unneeded ones for a day more, so that a copy that takes less has all of
them. A backup holds the control centre's private key: anyone who has it can speak as the control
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
from daitn.center.sharing import copy_shared
from daitn.files.atomic import (
    PARTIAL,
    make_folder,
    private_files,
    put_in_place,
    replace_file,
    sync,
)
from daitn.files.lock import FolderLock
from daitn.files.state_folder import CenterState, ProcessState
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, StorageFull
from daitn.tools import clock
from daitn.tools.journal.copying import copy_journal, is_empty

__all__ = ["BackupContents", "back_up", "checked_backup", "restore"]

_CONTENTS, _JOURNAL, _STATE = "backup.json", "journal.db", "state"
_LEFT_OUT: Final = frozenset({ProcessState.LOCK, CenterState.LOGS, "partial", "scratch"})
"""Files that belong to this process only, or are useless to another one."""
_PIECE: Final = 1 << 20


class BackupContents(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a backup."""

    software: str
    """The version that made it; later versions can restore it, earlier ones possibly not."""
    name: str
    """Name of the control centre."""
    at_s: float
    """When the journal was copied. Anything accepted later is not in it."""
    rows: int
    """Rows of the journal."""
    files: dict[str, str]
    """BLAKE3 digests by path within the backup."""


def back_up(config: CenterConfig, folder: Path) -> BackupContents:
    """Copy a control centre into a new folder, whether it is running or not.

    Raises `InvalidInput` if the folder is there already, or is in the state folder, `NotFound` if
    there is no control centre, `StorageFull`, and as `SqlJournal` does.
    """
    state = Path(config.state)
    if not (state / ProcessState.KEY).exists():
        raise NotFound(
            f"there is no control centre in {state}",
            field="state",
            fix="name its file with -c, and run this on the machine with its state folder",
        )
    if folder.resolve().is_relative_to(state.resolve()):
        raise InvalidInput(
            f"{folder} is in the state folder {state}, so each backup would hold all earlier ones",
            field="FOLDER",
            fix="name a folder elsewhere, preferably on another disk",
        )
    if folder.exists():
        raise InvalidInput(
            f"{folder} already exists",
            field="FOLDER",
            fix="name a new folder: a backup is never written over another one",
        )
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial)
        partial.chmod(0o700)
        at_s = clock.wall_s()
        rows = copy_journal(config.database_url, f"sqlite:///{partial / _JOURNAL}")
        _copy_state(config, partial / _STATE)
        if config.replica:
            copy_shared(config.database, partial / _STATE)
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
    """The contents of a backup. Raises `NotFound`, or `Corrupt` if a file has changed."""
    try:
        contents = msgspec.json.decode((folder / _CONTENTS).read_bytes(), type=BackupContents)
    except FileNotFoundError:
        raise NotFound(
            f"there is no complete backup in {folder}",
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
    """Restore a control centre from a backup, to the places in its file. It must not be running.

    Where the file names a replica, and its database has entries, that is the one which the others
    have: then the state folder alone is made. Raises `InvalidInput` if the state folder or the
    database holds anything else, as `checked_backup` does, and `StorageFull`. Nothing is
    overwritten; what was begun and not ended is to be removed before another try.
    """
    contents = checked_backup(folder)
    state = Path(config.state)
    with private_files(), FolderLock(state):
        empty = not config.database or is_empty(config.database)
        found = sorted(path.name for path in state.iterdir() if path.name != ProcessState.LOCK)
        if found or not (empty or config.replica):
            where = f"{state} holds {', '.join(found[:3])}" if found else "the database has entries"
            raise InvalidInput(
                f"{where}: nothing is overwritten",
                field="state" if found else "database",
                fix="name an empty state folder and database in the control centre's file, or "
                "move the existing ones away",
            )
        try:
            for name in contents.files:
                within = Path(name)
                if within.parts[0] == _STATE:
                    _copy(folder / within, state.joinpath(*within.parts[1:]))
            if empty:
                # Opening a database writes to it, and a backup must stay unchanged.
                read = state / _JOURNAL
                _copy(folder / _JOURNAL, read)
                copy_journal(f"sqlite:///{read}", config.database_url)
                read.unlink()
        except OSError as error:
            raise _unwritable(state, error) from None
    return contents


def _copy_state(config: CenterConfig, target: Path) -> None:
    state = Path(config.state)
    for path in _files(state):
        within = path.relative_to(state)
        of_database = within.name.startswith(CenterState.DATABASE)
        if not of_database and not _LEFT_OUT.intersection(within.parts):
            try:
                _copy(path, target / within)
            except FileNotFoundError:
                continue  # No longer needed, and deleted meanwhile.


def _copy(source: Path, target: Path) -> None:
    """A copy with its permissions, synced to disk."""
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
        fix="free space there, and check that this user can write to it",
    )
