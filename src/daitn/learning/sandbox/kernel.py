"""System calls without a function in Python."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

__all__ = [
    "LINUX",
    "adopt_orphans",
    "be_readable",
    "drop_capabilities",
    "end_first",
    "end_with_parent",
    "give_up_new_privileges",
    "mount",
    "prctl",
    "syscall",
    "unshare",
]

LINUX = sys.platform.startswith("linux")

_libc = ctypes.CDLL(None, use_errno=True)
if LINUX:
    _libc.syscall.restype = ctypes.c_long

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9
_OOM_SCORE_ADJ = 500
"""Half of the scale."""

Argument = int | ctypes.Array[ctypes.c_char] | ctypes.Structure | None


def syscall(number: int, *arguments: Argument) -> int:
    """The kernel's answer. Raises `OSError`."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else _address(a) for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed))


def prctl(option: int, *arguments: Argument) -> int:
    """Raises `OSError`."""
    passed = [ctypes.c_ulong(a) if isinstance(a, int) else _address(a) for a in arguments]
    # The kernel requires unused arguments to be 0.
    passed += [ctypes.c_ulong(0)] * (4 - len(passed))
    return _checked(_libc.prctl(ctypes.c_int(option), *passed))


def unshare(flags: int) -> None:
    """Raises `OSError`."""
    _checked(_libc.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Raises `OSError`."""
    _checked(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)
    )


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    if LINUX:
        prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def end_first() -> None:
    """If memory runs out, have Linux kill this process, and those that it starts, first."""
    if LINUX:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))


def adopt_orphans() -> None:
    """Become the parent of the processes that this process's children leave behind."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_readable(readable: bool) -> None:
    """Whether other processes of the same user may trace this one and read its memory."""
    prctl(_PR_SET_DUMPABLE, int(readable))


def give_up_new_privileges() -> None:
    """No program that this process runs gets more rights than it has; required by Landlock and
    seccomp."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up administrator rights, including those inside a user namespace."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(none)))


def _address(argument: Argument) -> object:
    return None if argument is None else ctypes.byref(argument)  # type: ignore[arg-type]


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
