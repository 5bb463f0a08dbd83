"""Atomic file writes: after a power failure, a file is complete or unchanged.

A file that is renamed before its bytes are on the disk can come back empty; one whose folder is
not written after it comes back under its old name, or not at all. So both are waited for.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from daitn.files.failed_writes import naming

__all__ = [
    "NO_FILE",
    "PARTIAL",
    "closed",
    "make_folder",
    "private_files",
    "put_in_place",
    "replace_file",
    "sync",
]

PARTIAL = ".partial"
"""Suffix of the name of a file that is being written; such files are useless after a crash."""
NO_FILE = -1
"""In place of a file descriptor: it is closed, or was never opened."""


def closed(file: int) -> int:
    """`NO_FILE`, once a file descriptor is closed. Closing what it gave is harmless."""
    if file != NO_FILE:
        os.close(file)
    return NO_FILE


def replace_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file, replacing an earlier one; on disk when this returns. Raises `OSError`.

    A `private` one is readable by its owner only, from its first byte on.
    """
    partial = path.with_name(path.name + PARTIAL)
    with naming(path), _held(partial, private) as file:
        file.write(data)
        file.flush()
        put_in_place(partial, path)


@contextmanager
def _held(partial: Path, private: bool) -> Iterator[BinaryIO]:
    """An empty file of that name, reserved for this writer: commands of one user, and threads of
    one process, write the same files."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        handle = os.open(partial, flags, 0o600 if private else 0o666)
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                ours = os.path.samestat(os.fstat(handle), partial.stat(follow_symlinks=False))
            except FileNotFoundError:
                ours = False
            if not ours:  # Its writer has put it in place.
                continue
            if private:
                os.fchmod(handle, 0o600)
            file.truncate()
            yield file
            return


def put_in_place(written: Path, path: Path) -> None:
    """Rename a complete file, replacing an earlier one; on disk when this returns.

    A folder too: its files must be on the disk already.
    Raises `OSError`.
    """
    sync(written)
    written.replace(path)
    sync(path.parent)


@contextmanager
def private_files() -> Iterator[None]:
    """Meanwhile, what this process makes is its user's alone, whatever the user's `umask`."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; on disk when this returns. Raises `OSError`."""
    missing = [folder, *folder.parents]
    missing = missing[: next((n for n, at in enumerate(missing) if at.is_dir()), len(missing))]
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            sync(made.parent)


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
