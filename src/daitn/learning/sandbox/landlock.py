"""Landlock: a process permanently gives up access to all files but those it names.

Numbers and structures are those of `linux/landlock.h`.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from daitn.learning.sandbox.kernel import syscall

__all__ = ["DEVICE", "READ", "READ_WRITE", "restrict", "version"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << n for n in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = _READ_FILE | _READ_DIR
READ_WRITE = (
    READ | _WRITE_FILE | _TRUNCATE | _MAKE_DIR | _MAKE_REG | _REMOVE_DIR | _REMOVE_FILE | _REFER
)
"""Plain files and folders only: the collector follows no link."""
DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV

_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that apply to a single file; the kernel refuses the rest there."""
_NEWEST = 6
"""The last version with a feature used here."""


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Raises `OSError` if the kernel has no Landlock, or it is turned off."""
    return syscall(_CREATE_RULESET, None, 0, _VERSION)


def restrict(allowed: Iterable[tuple[str, int]]) -> None:
    """Allow these rights below these paths, and nothing else. Missing paths are skipped.

    Also no TCP, and no signal or abstract socket reaches a process outside, as far as the kernel
    knows how. The process must have given up new privileges. Raises `OSError`.
    """
    abi = min(version(), _NEWEST)
    known = _known(abi)
    ruleset = _Ruleset(known, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = syscall(_CREATE_RULESET, ruleset, size, 0)
    try:
        for path, rights in allowed:
            _allow(rules, path, rights & known)
        syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _known(abi: int) -> int:
    """The rights that this version can restrict."""
    rights = (1 << 13) - 1
    for right, since in ((_REFER, 2), (_TRUNCATE, 3), (_IOCTL_DEV, 5)):
        if abi >= since:
            rights |= right
    return rights


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # What this process cannot reach, it needs no right to.
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        syscall(_ADD_RULE, rules, _PATH_BENEATH, _PathBeneath(rights, place), 0)
    finally:
        os.close(place)
