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

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from daitn import __version__
from daitn.center.config import CenterConfig
from daitn.center.database_owner import claim_database
from daitn.center.sharing import copy_shared
from daitn.files.atomic import (
    PARTIAL,
    make_folder,
    private_files,
    put_in_place,
    replace_file,
    sync,
)
from daitn.files.failed_writes import failed_write
from daitn.files.lock import FolderLock
from daitn.files.state_folder import CenterState, ProcessState
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound
from daitn.tools import clock
from daitn.tools.journal.copying import copy_journal, is_empty
from daitn.tools.journal.opening import open_database

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
    if not (state / ProcessState.KEY).exists() or (state / ProcessState.RESTORING).exists():
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
        contents = _copied(config, partial)
        replace_file(partial / _CONTENTS, msgspec.json.format(msgspec.json.encode(contents)))
        put_in_place(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unwritable(folder, error, "FOLDER") from None
        raise
    return contents


def _copied(config: CenterConfig, partial: Path) -> BackupContents:
    at_s = clock.wall_s()
    rows = copy_journal(config.database_url, f"sqlite:///{partial / _JOURNAL}")
    _copy_state(config, partial / _STATE)
    if config.replica:
        copy_shared(config.database, partial / _STATE)
    return BackupContents(
        software=__version__,
        name=config.name,
        at_s=at_s,
        rows=rows,
        files={str(path.relative_to(partial)): _digest(path) for path in _files(partial)},
    )


def checked_backup(folder: Path) -> BackupContents:
    """The contents of a backup. Raises `NotFound`, `InvalidInput` if a later version made it, or
    `Corrupt` if a file is missing or has changed."""
    listed = folder / _CONTENTS
    try:
        contents = msgspec.json.decode(listed.read_bytes(), type=BackupContents)
    except FileNotFoundError:
        raise NotFound(
            f"there is no complete backup in {folder}",
            field="FOLDER",
            fix=f"name a folder that `daitn backup` made; it has {_CONTENTS}",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(listed, str(error)) from None
    except OSError as error:
        raise _damaged(listed, error.strerror or str(error)) from None
    if _release(contents.software) > _release(__version__):
        raise InvalidInput(
            f"{folder} was made by daitn {contents.software}, which is later than {__version__}",
            field="FOLDER",
            fix=f"install daitn {contents.software} or a later version, and restore with that",
        )
    for name in (_JOURNAL, f"{_STATE}/{ProcessState.KEY}"):
        if name not in contents.files:
            raise _damaged(listed, f"it does not list {name}")
    for name, digest in contents.files.items():
        _check_file(folder, name, digest)
    return contents


def _check_file(folder: Path, name: str, digest: str) -> None:
    parts = name.split("/")
    if name != _JOURNAL and (parts[0] != _STATE or {"", ".", ".."}.intersection(parts)):
        raise _damaged(folder / _CONTENTS, f"it lists {name}, which is not in the state folder")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise _damaged(path, "it is missing")
    if _digest(path) != digest:
        raise _damaged(path, "its digest is another")


def _release(version: str) -> tuple[int, ...]:
    """A version's numbers, to compare; what follows them is ignored."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    found = [int(number) for number in numbers[0].split(".")] if numbers else []
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def restore(config: CenterConfig, folder: Path) -> BackupContents:
    """Restore a control centre from a backup, to the places in its file. It must not be running.

    If the file names a replica and its database has entries, the database is the shared one: only
    the state folder is created. Raises `InvalidInput` if the state folder or the
    database holds anything else, as `checked_backup` does, and `StorageFull`. Nothing is
    overwritten, and nothing is left of a restore that fails. A killed restore starts over; if it
    had already filled the database, empty that first.
    """
    contents = checked_backup(folder)
    if contents.name != config.name:
        raise InvalidInput(
            f"{folder} is a backup of the control centre {contents.name}, not of {config.name}",
            field="name",
            fix=f"state `name: {contents.name}` in the control centre's file",
        )
    state = Path(config.state)
    with private_files(), FolderLock(state, restores=True):
        if (state / ProcessState.RESTORING).exists():
            _clear(state)
        empty = not config.database or is_empty(config.database)
        ours = (ProcessState.LOCK, ProcessState.RESTORING + PARTIAL)
        found = sorted(path.name for path in state.iterdir() if path.name not in ours)
        if found or not (empty or config.replica):
            where = f"{state} holds {', '.join(found[:3])}" if found else "the database has entries"
            raise InvalidInput(
                f"{where}: nothing is overwritten",
                field="state" if found else "database",
                fix="name an empty state folder and database in the control centre's file, or "
                "move the existing ones away",
            )
        replace_file(state / ProcessState.RESTORING, b"")
        try:
            _restored(config, contents, folder, journal=empty)
        except BaseException as error:
            _clear(state)
            if isinstance(error, OSError):
                raise _unwritable(state, error, "state") from None
            raise
        (state / ProcessState.RESTORING).unlink()
        sync(state)
    return contents


def _restored(
    config: CenterConfig, contents: BackupContents, folder: Path, *, journal: bool
) -> None:
    """Copy the state folder, and the `journal` unless there is one that is shared."""
    state = Path(config.state)
    read = state / _JOURNAL
    if journal:
        # Opening a database writes to it, and a backup must stay unchanged. One that this version
        # cannot read fails before anything else is copied.
        _copy(folder / _JOURNAL, read)
        open_database(f"sqlite:///{read}").dispose()
    for name in contents.files:
        within = Path(name)
        if within.parts[0] == _STATE:
            _copy(folder / within, state.joinpath(*within.parts[1:]))
    if journal:
        copy_journal(f"sqlite:///{read}", config.database_url, contents.rows)
        read.unlink()
    if config.database:
        claim_database(config)


def _clear(state: Path) -> None:
    """Remove what a restore made, its mark last."""
    for path in state.iterdir():
        if path.name in (ProcessState.LOCK, ProcessState.RESTORING):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    sync(state)
    (state / ProcessState.RESTORING).unlink(missing_ok=True)


def _copy_state(config: CenterConfig, target: Path) -> None:
    state = Path(config.state)
    for path in _files(state, beside=target.parent):
        within = path.relative_to(state)
        of_database = within.name.startswith(CenterState.DATABASE)
        if not of_database and not _LEFT_OUT.intersection(within.parts):
            try:
                _copy(path, target / within)
            except FileNotFoundError:
                if path.is_symlink():
                    raise _leads_nowhere(path) from None
                continue  # No longer needed, and deleted meanwhile.


def _copy(source: Path, target: Path) -> None:
    """A copy with its permissions, synced to disk."""
    make_folder(target.parent)
    shutil.copy2(source, target)
    sync(target)


def _files(
    folder: Path, beside: Path | None = None, above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """All files, those behind links too, as a state folder may lie on several disks; none of
    `beside`, which is being written. `above`: where it came from, as links may lead in circles.
    Raises `OSError`."""
    real = folder.resolve()
    if real in above or (beside is not None and real == beside.resolve()):
        return
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return  # No longer needed, and deleted meanwhile.
    for path in entries:
        if path.is_dir():
            yield from _files(path, beside, above | {real})
        elif not path.name.endswith(PARTIAL) and (path.is_file() or path.is_symlink()):
            yield path


def _digest(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def _leads_nowhere(link: Path) -> InvalidInput:
    return InvalidInput(
        f"the link {link} leads to {os.readlink(link)}, which is not there",
        field="state",
        fix="mount its disk, or remove the link",
    )


def _damaged(path: Path, why: str) -> Corrupt:
    return Corrupt(f"{path} is damaged: {why}", field=str(path), fix="take another backup")


def _unwritable(folder: Path, error: OSError, field: str) -> DaitnError:
    fix = "check that the place exists, and that this user can write to it"
    return failed_write(error.filename or folder, error, field=field, fix=fix)
