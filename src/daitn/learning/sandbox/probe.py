"""Which mechanisms work here: `python -m daitn.learning.sandbox.probe` tries each.

They are tried in processes that are thrown away, as a node could not undo one of them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable

import msgspec

from daitn.learning.sandbox import landlock, limits, namespaces, seccomp
from daitn.learning.sandbox.kernel import LINUX, give_up_new_privileges
from daitn.learning.sandbox.policy import Available, Limits, Mechanism, Sandbox

__all__ = ["available", "fences", "main"]

_found: Available | None = None


async def available() -> Available:
    """The mechanisms that work here; tried once for all nodes of this process."""
    global _found
    if _found is None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __name__), stdin=DEVNULL, stdout=PIPE
        )
        output, _ = await process.communicate()
        _found = msgspec.json.decode(output, type=Available) if output else Available()
    return _found


async def fences(sandbox: Sandbox) -> tuple[Mechanism, ...]:
    """The mechanisms of a sandbox."""
    if sandbox.mechanisms is not None:
        return sandbox.mechanisms
    return (await available()).mechanisms


def main() -> None:
    """Try everything, and report."""
    found = tuple(m for m, attempt in _ATTEMPTS.items() if LINUX and _works(attempt))
    abi = landlock.version() if Mechanism.LANDLOCK in found else 0
    sys.stdout.buffer.write(msgspec.json.encode(Available(mechanisms=found, landlock=abi)))


def _works(attempt: Callable[[], bool]) -> bool:
    """Whether it has its effect, in a separate process."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if attempt() else 1)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _try_namespaces() -> bool:
    namespaces.enter_namespaces()

    def inside() -> bool:
        namespaces.see_own_processes()
        return os.getpid() == 1 and {name for _, name in socket.if_nameindex()} <= {"lo"}

    return _works(inside)


def _try_landlock() -> bool:
    give_up_new_privileges()
    landlock.restrict([(sys.prefix, landlock.READ)])
    os.listdir(sys.prefix)
    return _refused(lambda: os.listdir("/"))


def _try_seccomp() -> bool:
    if not seccomp.supported():
        return False
    give_up_new_privileges()
    seccomp.restrict()
    return _refused(socket.socket) and _refused(os.fork)


def _try_limits() -> bool:
    limits.hold(Limits(file_bytes=1, memory_bytes=1), processes=False)
    with tempfile.TemporaryFile() as file:
        return _refused(lambda: os.truncate(file.fileno(), 2))


def _refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


_ATTEMPTS = {
    Mechanism.NAMESPACES: _try_namespaces,
    Mechanism.LANDLOCK: _try_landlock,
    Mechanism.SECCOMP: _try_seccomp,
    Mechanism.LIMITS: _try_limits,
}


if __name__ == "__main__":
    main()
