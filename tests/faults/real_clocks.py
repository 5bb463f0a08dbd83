"""The wall clocks of machines in a network of real processes, which may be set to any time.

Each process of a network gets its time by a hook that Python runs as it starts. A process that is
started while its machine's clock is wrong counts its own time from there, as `daitn.tools.clock`
does, also if it is forked from a template that was right.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Clocks"]

_HOOK = """
import mmap, pathlib, struct, sys, time

true_s, folder, ahead = time.time, pathlib.Path(__file__).parent, None


def mine():
    arguments = sys.argv[1:]
    name = arguments[-1] if "--site" in arguments else "".join(arguments[:1])
    try:
        with (folder / f"{name}.clock").open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None


def shown_s():
    global ahead
    if ahead is None:
        ahead = mine()
        if ahead is None:
            return true_s()
        steady = sys.modules.get("daitn.tools.clock")
        if hasattr(steady, "_epoch_s"):
            steady._epoch_s += struct.unpack("d", ahead)[0]
    return true_s() + struct.unpack("d", ahead)[0]


time.time = shown_s
"""


class Clocks:
    """Of machines by name, all right at first."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        """`folder`: a new one."""
        folder.mkdir()
        self._folder = folder
        self._ahead_s = dict.fromkeys(names, 0.0)
        (folder / "sitecustomize.py").write_text(_HOOK)
        for name in self._ahead_s:
            self._file(name).write_bytes(struct.pack("d", 0.0))

    @property
    def path(self) -> str:
        """`PYTHONPATH` of processes that go by these clocks."""
        return os.pathsep.join((str(self._folder), os.environ.get("PYTHONPATH", "")))

    def wrong(self, name: str) -> bool:
        return self._ahead_s[name] != 0.0

    def set(self, name: str, ahead_s: float) -> None:
        """Let a machine's clock leap, to so much after the true time."""
        self._ahead_s[name] = ahead_s
        with self._file(name).open("r+b") as file:
            file.write(struct.pack("d", ahead_s))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
