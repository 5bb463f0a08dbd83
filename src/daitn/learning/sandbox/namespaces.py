"""Separate namespaces: of user, network, processes, mounts, IPC and host name.

A user namespace needs no rights where the kernel lets everybody make one, and gives those that the
others need. Seen from outside, the process keeps the user of its node.
"""

from __future__ import annotations

import os
from pathlib import Path

from daitn.learning.sandbox.kernel import mount, unshare

__all__ = ["enter_namespaces", "see_own_processes"]

_NEWNS, _NEWUTS, _NEWIPC = 0x00020000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18


def enter_namespaces() -> None:
    """The only network is a loopback that is down. The next process that this one starts is the
    first in its namespace, and ends all others there when it ends.

    The process must have no second thread. Raises `OSError`.
    """
    user, group = os.geteuid(), os.getegid()
    unshare(_NEWUSER | _NEWNET | _NEWIPC | _NEWUTS | _NEWPID)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def see_own_processes() -> bool:
    """In that first process: have separate mounts, and a `/proc` that shows no other process;
    returns whether it has one.

    In a container that hides parts of its own, the kernel does not let it be mounted.
    """
    try:
        unshare(_NEWNS)
        mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
        mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    except OSError:
        return False
    return True
