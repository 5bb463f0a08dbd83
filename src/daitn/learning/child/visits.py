"""Visits: one process each, forked from a warm worker, confined, and ended once it has answered.

The worker has imported the engine and runs no recipe, so that nothing of one visit is there for the
next one. It starts no thread: only then is it safe to fork. A visit's process starts its threads
itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import psutil

from daitn.learning.sandbox.confining import confine
from daitn.learning.sandbox.kernel import (
    LINUX,
    adopt_orphans,
    be_readable,
    end_with_parent,
)
from daitn.learning.sandbox.limits import LOOK_EVERY_S, Watch
from daitn.learning.sandbox.namespaces import enter_namespaces, see_own_processes
from daitn.learning.sandbox.policy import Confinement, Mechanism
from daitn.objects.errors import LimitExceeded
from daitn.spawning.pages import use_huge_pages

__all__ = ["VisitProcess", "become", "ready_to_fork"]

_ANSWERS = 3
"""The descriptor on which a visit answers: the first after its standard streams."""
_GO = b"!"
_BY_SIGNAL = 128
_ENDS_WITHIN_S = 1.0
_LOOKS_EVERY_S = 0.005
"""Polling interval for a visit that closed its replies, which is about to end if it is honest."""
_FIRST = 1
"""The first process of a namespace adopts and may end all others there."""


def ready_to_fork() -> None:
    """Call when everything is imported: what exists by now is shared with the visits, which cannot
    look back at this process."""
    gc.collect()
    gc.freeze()
    if LINUX:
        be_readable(True)
        use_huge_pages()
        adopt_orphans()
        be_readable(False)


@dataclass(frozen=True)
class _Pipe:
    reads: int
    writes: int

    @classmethod
    def new(cls) -> _Pipe:
        return cls(*os.pipe())

    def close(self) -> None:
        os.close(self.reads)
        os.close(self.writes)


class VisitProcess:
    """The process of one visit, seen from its worker."""

    def __init__(self, confinement: Confinement, work: Callable[[int], None]) -> None:
        """Start it: confined, it calls `work` with the descriptor on which it may answer.

        Raises `OSError` where the machine has no room for it.
        """
        self._replied, self._printed, self._leash = _Pipe.new(), _Pipe.new(), _Pipe.new()
        self.replies, self.prints = self._replied.reads, self._printed.reads
        """Its replies and its output: to be read until they end."""
        self.pid = _fork(lambda: self._run(confinement, work))
        for descriptor in (self._replied.writes, self._printed.writes, self._leash.reads):
            os.close(descriptor)
        self._watch = _watch(self.pid, confinement)
        os.write(self._leash.writes, _GO)

    def exceeded(self, *, at_files: bool = False) -> LimitExceeded | None:
        """The limit that it has exceeded. `at_files`: check its files in any case."""
        return None if self._watch is None else self._watch.look(at_files=at_files)

    def end(self) -> int:
        """End it and everything it started; its exit code, or the negative number of the signal
        that ended it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def leave(self) -> int | None:
        """After it closed its replies: its exit code as from `end`, if it ends on its own, as it
        should at once; none if it did not, and was ended."""
        until_s = time.monotonic() + _ENDS_WITHIN_S
        while time.monotonic() < until_s:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return self.wait()
            time.sleep(_LOOKS_EVERY_S)
        self.end()
        return None

    def wait(self) -> int:
        """Wait for its end, like `end`."""
        _, status = os.waitpid(self.pid, 0)
        _end_others()
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Clean up after its end."""
        for descriptor in (self.replies, self.prints, self._leash.writes):
            os.close(descriptor)

    def _run(self, confinement: Confinement, work: Callable[[int], None]) -> None:
        os.close(self._leash.writes)
        if not _led(self._leash.reads):
            return
        if LINUX:
            be_readable(True)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        replied, printed = self._replied.writes, self._printed.writes
        for descriptor, stream in ((nothing, 0), (printed, 1), (printed, 2), (replied, _ANSWERS)):
            os.dup2(descriptor, stream)
        os.closerange(_ANSWERS + 1, _highest_descriptor() + 1)
        confine(confinement)
        work(_ANSWERS)


def become(
    confinement: Confinement,
    work: Callable[[], None],
    streams: tuple[BinaryIO, ...],
    *,
    confined: bool,
) -> NoReturn:
    """Have `work` done by a process to which `streams` belong from now on, and end like it.

    If it has namespaces of its own, their first process stands between the two, or in its place:
    what is started there ends with that one. `confined`: the process does not
    start visits, but runs recipes itself.
    """
    own = Mechanism.NAMESPACES in confinement.mechanisms
    if own:
        enter_namespaces()

    def confinedly() -> None:
        confine(confinement)
        work()

    def first() -> None:
        if own:
            see_own_processes()
        if confined:
            # The kernel holds back from a first process what would end any other.
            _look_after(confinedly, streams, confinement)
        work()

    _look_after(first, streams)


def _look_after(
    run: Callable[[], None], streams: tuple[BinaryIO, ...], limited: Confinement | None = None
) -> NoReturn:
    """Start a process that calls `run`, pass `streams` to it, and end like it."""
    leash = _Pipe.new()

    def led() -> None:
        os.close(leash.writes)
        if _led(leash.reads):
            os.close(leash.reads)
            run()

    pid = _fork(led)
    os.close(leash.reads)
    for stream in streams:
        stream.close()
    watch = None if limited is None else _watch(pid, limited)
    os.write(leash.writes, _GO)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG if watch else 0)
        if ended:
            _end_like(os.waitstatus_to_exitcode(status))
        if watch and (over := watch.look()):
            os.write(2, f"{over.problem}; it is ended\n".encode())
            os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY_S)


def _fork(run: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _led(leash: int) -> bool:
    """Wait until the worker lets this process begin; from then on they end together."""
    if os.read(leash, 1) != _GO:
        return False
    end_with_parent()
    # Check whether the worker ended before the kernel knew what to do then.
    return not select.select([leash], [], [], 0.0)[0]


def _watch(pid: int, confinement: Confinement) -> Watch | None:
    if Mechanism.LIMITS not in confinement.mechanisms:
        return None
    return Watch(pid, confinement.limits, (confinement.scratch, *confinement.writable))


def _end_others() -> None:
    """End what a visit has started and left behind."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.getpid() == _FIRST:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)  # All in this namespace but this process.
            else:
                for child in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        child.kill()
            os.waitpid(-1, 0)


def _end_like(code: int) -> NoReturn:
    """End by the same signal, or with the same exit code. A first process cannot end itself by a
    signal and reports it like shells do, with 128 plus its number."""
    number = -code if code < 0 else code - _BY_SIGNAL
    if number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(_BY_SIGNAL + number)
    os._exit(code)


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd")) if LINUX else 1024
