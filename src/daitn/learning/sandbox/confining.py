"""A process confines itself before it touches anything forbidden."""

from __future__ import annotations

import glob
import os
import site
import sys
import tempfile
from collections.abc import Iterator

from daitn.learning.gpus import has_gpu
from daitn.learning.sandbox import landlock, limits, seccomp
from daitn.learning.sandbox.kernel import LINUX, drop_capabilities, give_up_new_privileges
from daitn.learning.sandbox.landlock import DEVICE, READ, READ_WRITE
from daitn.learning.sandbox.policy import Confinement, Mechanism

__all__ = ["confine"]

_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
)
_MACHINE = ("/sys/devices/system", "/sys/fs/cgroup")
"""Processors, and the memory that a container may use."""
_OF_GPUS = ("/sys",)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPUS = ("/dev/nvidia*", "/dev/dri", "/dev/kfd")
_OWN_PROC = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/driver",
    "/proc/devices",
)
"""Where other processes are visible."""


def confine(confinement: Confinement) -> None:
    """Permanently give up everything that `confinement` does not name. Namespaces already exist.

    Raises `OSError` where a mechanism is refused.
    """
    fences = confinement.mechanisms
    own_processes = Mechanism.NAMESPACES in fences and os.readlink("/proc/self") == str(os.getpid())
    _move_in(confinement.scratch)
    if Mechanism.LIMITS in fences:
        limits.hold(confinement.limits, processes=Mechanism.NAMESPACES in fences)
    if LINUX:
        give_up_new_privileges()
    if Mechanism.LANDLOCK in fences:
        landlock.restrict(_allowed(confinement, own_processes))
    if LINUX:
        drop_capabilities()
    if Mechanism.SECCOMP in fences:
        seccomp.restrict()


def _move_in(scratch: str) -> None:
    os.chdir(scratch)
    # Libraries that ask for their user would otherwise read files outside.
    os.environ |= {"HOME": scratch, "TMPDIR": scratch, "USER": "recipe", "LOGNAME": "recipe"}
    tempfile.tempdir = None


def _allowed(confinement: Confinement, own_processes: bool) -> Iterator[tuple[str, int]]:
    for path in (*_interpreter(), *_LIBRARIES, *_MACHINE, *confinement.readable):
        yield path, READ
    for path in ("/proc",) if own_processes else _OWN_PROC:
        yield path, READ
    for path in (confinement.scratch, *confinement.writable):
        yield path, READ_WRITE
    for path in _DEVICES:
        yield path, DEVICE
    if has_gpu():
        for path in _OF_GPUS:
            yield path, READ
        for path in (found for pattern in _GPUS for found in glob.glob(pattern)):
            yield path, DEVICE | READ


def _interpreter() -> set[str]:
    """The folders of Python and all packages installed for it."""
    places = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path}
    places |= set(site.getsitepackages())
    places |= set(os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    return {os.path.realpath(place) for place in places if place}
