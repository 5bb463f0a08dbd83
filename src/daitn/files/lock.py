"""One process for one state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from daitn.files.atomic import make_folder
from daitn.objects.errors import InvalidInput

__all__ = ["FolderLock"]


class FolderLock:
    """Holds a folder until `release`, or until the process ends, however it ends.

    Raises `InvalidInput` when another process has it, or when the folder cannot be written: two
    processes over one journal or one work log would undo each other's work. With `waits`, another
    process is waited for.
    """

    def __init__(self, folder: Path, *, waits: bool = False) -> None:
        try:
            make_folder(folder)
            self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidInput(
                f"the folder {folder} cannot be written: {error.strerror}",
                field="state",
                fix="name a folder that this user may write to",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            os.close(self._file)
            raise InvalidInput(
                f"another process works with {folder}",
                field="state",
                fix="stop it, or give each process a state folder of its own",
            ) from None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it. Releasing twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
