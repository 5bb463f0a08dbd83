"""Disks of real processes, which fill up and rot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

__all__ = ["fill", "mounted", "rot"]


def fill(state: Path) -> Callable[[], None]:
    """Leave no room on a disk, until what is returned is called."""
    filler = state / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * (1 << 16)):
            pass
    return lambda: filler.unlink(missing_ok=True)


def rot(state: Path, where: float) -> bool:
    """Turn over a bit of one of the blobs on a disk, if there is one."""
    blobs = sorted((state / "models" / "blobs").glob("*/*"))
    if blobs:
        blob = blobs[int(where * len(blobs))]
        with suppress(OSError):
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 1
            blob.write_bytes(bytes(data))
    return bool(blobs)


def mounted(folder: Path, stack: ExitStack) -> bool:
    """Put a small file system there, if this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    unmount = ["umount", "-l", str(folder)]
    stack.callback(subprocess.run, unmount, capture_output=True, check=False)
    return True
