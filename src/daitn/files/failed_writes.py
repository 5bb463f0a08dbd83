"""Writes that fail: where, and whether for lack of room."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from daitn.objects.errors import DaitnError, InvalidInput, StorageFull

__all__ = ["MAKE_ROOM", "STATE_FIX", "STDOUT", "failed_write", "is_full", "naming"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room, quota used up, larger than the file system or the process's limit allows."""

STDOUT: Final = "standard output"
STATE_FIX: Final = "free space in the site's state folder, and check that it is writable"
MAKE_ROOM: Final = "free space there, raise the quota or the limit, or write to another disk"


def is_full(error: OSError) -> bool:
    """Whether a write failed for lack of room."""
    return error.errno in _FULL


def failed_write(what: Path | str, error: OSError, *, field: str, fix: str) -> DaitnError:
    """The error for something that cannot be written; `fix` is for other reasons than room."""
    problem = f"{what} cannot be written: {error.strerror or error}"
    if is_full(error):
        return StorageFull(problem, field=field, fix=MAKE_ROOM)
    return InvalidInput(problem, field=field, fix=fix)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """An `OSError` from this block names this file, folder or stream, if it names none: opening a
    file fails with its name, writing to it without."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
