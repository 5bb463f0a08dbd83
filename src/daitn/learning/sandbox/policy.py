"""The mechanisms that confine recipes, and recipes' limits."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import msgspec

__all__ = [
    "UNCONFINED",
    "UNLIMITED",
    "USUAL",
    "Available",
    "Confinement",
    "Limits",
    "Mechanism",
    "Sandbox",
]


class Mechanism(StrEnum):
    """A fence around the processes that run recipes."""

    NAMESPACES = "namespaces"
    """User, network, process, mount and IPC namespaces: no network interface, no sight of other
    processes, and everything that a visit started ends with it."""
    LANDLOCK = "landlock"
    """Files that are not named cannot be opened."""
    SECCOMP = "seccomp"
    """System calls that recipes do not need fail: sockets, other processes, mounts."""
    LIMITS = "limits"
    """Memory, CPU time, wall-clock time and disk space are bounded."""


class Available(msgspec.Struct, frozen=True, kw_only=True):
    """The mechanisms that work here, as tried."""

    mechanisms: tuple[Mechanism, ...] = ()
    landlock: int = 0
    """Version of Landlock: TCP is restricted from 4 on, signals and abstract sockets from 6 on."""

    def __str__(self) -> str:
        landlock = f"{Mechanism.LANDLOCK} {self.landlock}"
        words = (landlock if m is Mechanism.LANDLOCK else str(m) for m in self.mechanisms)
        return ", ".join(words) or "none"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one visit. 0 means unlimited."""

    memory_bytes: int = 0
    """In addition to what a fresh process has."""
    cpu_s: float = 0.0
    """CPU time of all its threads."""
    time_s: float = 0.0
    file_bytes: int = 0
    """Total size of the files that it writes."""


UNLIMITED = Limits()
USUAL = Limits(memory_bytes=2 << 30, cpu_s=3600.0, time_s=14400.0, file_bytes=1 << 30)
"""To read data, and in addition to a model's estimate."""

_MEMORY_MARGIN = 2
_FILE_MARGIN = 2
_TIME_MARGIN = 100
"""A small network reaches a few per cent of the measured speed."""


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox of a site's recipes."""

    mechanisms: tuple[Mechanism, ...] | None = None
    """`None` means all that work here."""
    limits: Limits = USUAL
    folder: str = ""
    """Folder in which private folders are made; empty means that of temporary files."""

    def limits_for(
        self,
        *,
        memory_bytes: int,
        size_bytes: int,
        seconds: float,
        threads: int,
        kept_bytes: int = 0,
    ) -> Limits:
        """Limits of work with a model estimated to take this much memory. `kept_bytes`: size of
        savepoints."""
        usual = self.limits
        return Limits(
            memory_bytes=_more(usual.memory_bytes, _MEMORY_MARGIN * memory_bytes),
            cpu_s=_more(usual.cpu_s, _TIME_MARGIN * seconds * threads),
            time_s=_more(usual.time_s, _TIME_MARGIN * seconds),
            file_bytes=_more(usual.file_bytes, _FILE_MARGIN * size_bytes + kept_bytes),
        )


UNCONFINED = Sandbox()


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """How a child process confines itself."""

    mechanisms: tuple[Mechanism, ...] = ()
    scratch: str
    """A private folder: home, temporary files, working directory."""
    readable: tuple[str, ...] = ()
    """Files and folders, in addition to the interpreter and its libraries."""
    writable: tuple[str, ...] = ()
    """Folders, in addition to `scratch`."""
    limits: Limits = UNLIMITED


_Amount = TypeVar("_Amount", int, float)


def _more(usual: _Amount, estimated: _Amount) -> _Amount:
    return usual + estimated if usual else usual
