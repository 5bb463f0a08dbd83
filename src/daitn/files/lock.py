"""One process for one state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from daitn.files.atomic import closed, make_folder
from daitn.files.failed_writes import failed_write
from daitn.files.state_folder import NodeState, ProcessState
from daitn.objects.errors import InvalidInput

__all__ = ["FolderLock"]

_EMPTIED = (NodeState.SCRATCH, NodeState.SERVING)
"""Emptied whenever a process starts."""


class FolderLock:
    """Locks a folder until `release`, or until the process ends, however it ends.

    Raises `InvalidInput` when another process has it, when the folder cannot be written, or when
    somebody else's files in it would be deleted, and `StorageFull` when its disk has no room: two
    processes over one journal or one work log would undo each other's work. With `waits`, another
    process is waited for. Only a process that `restores` gets a folder whose restore did not end.
    """

    def __init__(self, folder: Path, *, waits: bool = False, restores: bool = False) -> None:
        try:
            make_folder(folder)
            _check_deletes_nothing(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(folder / ProcessState.LOCK, flags, 0o600)
        except OSError as error:
            fix = "name a folder that this user may write to"
            raise failed_write(f"the folder {folder}", error, field="state", fix=fix) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            os.close(self._file)
            raise InvalidInput(
                f"another process uses {folder}",
                field="state",
                fix="stop it, or give each process a state folder of its own",
            ) from None
        if not restores and (folder / ProcessState.RESTORING).exists():
            self.release()
            raise InvalidInput(
                f"a restore into {folder} did not end, so part of its files is missing",
                field="state",
                fix="restore the backup again with `daitn restore`, or name another folder",
            )

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release it. Releasing twice is harmless."""
        self._file = closed(self._file)


def _check_deletes_nothing(folder: Path) -> None:
    if (folder / ProcessState.LOCK).exists():
        return
    for name in _EMPTIED:
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            raise InvalidInput(
                f"{folder / name} has files already, which this process would delete",
                field="state",
                fix="name a folder for its state alone",
            )
