"""Seccomp: system calls that recipes do not need fail with `EPERM`.

The filter is a program of classic BPF over `struct seccomp_data` (`linux/seccomp.h`). The numbers
of system calls are those of `asm/unistd.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from daitn.learning.sandbox.kernel import prctl

__all__ = ["restrict", "supported"]

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED: dict[str, tuple[int, int | None]] = {
    # The network. `socketpair` stays: it reaches nobody, and event loops need it.
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Requests for system calls that no filter sees.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Processes: a visit is one, and runs no other program.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    # Mounts and namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    # Memory and messages that outlive a process, or that no limit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # Links would lead the collector of the files elsewhere.
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    # The kernel itself.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
}
"""By name: the number on x86-64 and on 64-bit ARM."""
_CLONE = (56, 220)
_CLONE3 = 435
_OWN_ONLY = ((62, 129), (234, 131))
"""`kill` and `tgkill`: a process may only signal itself."""
_PRCTL = (157, 167)
_SET_PDEATHSIG = 1
"""Call by which a process could outlive its worker."""
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
"""Set in the numbers of x86-64's second calling convention, which would bypass the others."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_PR_SET_SECCOMP, _FILTER_MODE = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _ARCHITECTURES


def restrict() -> None:
    """Refuse those system calls to this process from now on. It must have given up new privileges.

    Raises `OSError`.
    """
    code = _program(platform.machine(), os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    prctl(_PR_SET_SECCOMP, _FILTER_MODE, _Program(len(code) // 8, ctypes.addressof(buffer)))


def _program(machine: str, pid: int) -> bytes:
    which = list(_ARCHITECTURES).index(machine)
    refuse = _step(_RETURN, _ERROR | errno.EPERM)
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _ARCHITECTURES[machine], yes=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, _X32, no=1), refuse]
    for numbers in _REFUSED.values():
        number = numbers[which]
        if number is not None:
            steps += [_step(_EQUAL, number, no=1), refuse]
    # Its flags are in memory, where no filter looks: the C library then uses `clone`.
    steps += [_step(_EQUAL, _CLONE3, no=1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    threads_only = [_step(_ANY_BIT, _CLONE_THREAD, yes=1), refuse]
    steps += _on_first_argument(_CLONE[which], threads_only)
    steps += _on_first_argument(_PRCTL[which], [_step(_EQUAL, _SET_PDEATHSIG, no=1), refuse])
    for numbers in _OWN_ONLY:
        steps += _on_first_argument(numbers[which], [_step(_EQUAL, pid, yes=1), refuse])
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


def _on_first_argument(number: int, check: list[bytes]) -> list[bytes]:
    """For one system call, let `check` refuse its first argument (the lower half of it)."""
    steps = [_step(_LOAD, _FIRST), *check, _step(_RETURN, _ALLOW)]
    return [_step(_EQUAL, number, no=len(steps)), *steps]


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One BPF instruction; a comparison skips this many instructions."""
    return struct.pack("=HBBI", code, yes, no, value)
