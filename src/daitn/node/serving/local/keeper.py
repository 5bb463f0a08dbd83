"""The supervisor between a node and a server that it runs: `python -m
daitn.node.serving.local.keeper PROGRAM ...`.

The program ends when the node does, however that ends: the keeper's input ends with the node. With
the program end all processes that it started, in whatever group they are: the keeper adopts them.
It ends as the program did.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time

import psutil

from daitn.learning.sandbox.kernel import LINUX, adopt_orphans, end_first, end_with_parent

__all__ = ["ENDS_WITHIN_S", "main"]

ENDS_WITHIN_S = 3.0
"""How long a program may take to end when told to."""
_LOOKS_EVERY_S = 0.2


def main(*command: str) -> int:
    """Run a program until it ends, or the node does; its exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # Its memory holds what people asked.
    if LINUX:
        adopt_orphans()
    end_first()
    # No other thread runs in this process, so it is safe to run code after the fork.
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)
    while program.poll() is None and not _node_ended():
        pass
    if program.poll() is None:
        program.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(ENDS_WITHIN_S)
        program.kill()
    code = program.wait()
    _end_all()
    if code < 0:
        with contextlib.suppress(OSError):  # There are signals that need no default.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _node_ended() -> bool:
    ready, _, _ = select.select([0], [], [], _LOOKS_EVERY_S)
    return bool(ready) and not os.read(0, 1)


def _end_all() -> None:
    """End all remaining processes."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[1:2]}: {error.strerror}")
