"""Starts a template and processes from it, and follows them, without an event loop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import IO

from daitn.spawning.messages import NOTICES, Exited, Join, Spawn, Spawned, receive, send

__all__ = ["ForkedProcess", "Template"]

_TEMPLATE = "daitn.spawning.template"


class Template:
    """A running template, which ends when nobody is connected to it."""

    def __init__(
        self, modules: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]
    ) -> None:
        """Start it; returns before it has imported the modules. `errors`: receives its output, such
        as failed imports. Raises `OSError`."""
        self._connection, theirs = _pair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: files in the working directory are not modules.
                (sys.executable, "-P", "-m", _TEMPLATE, str(theirs.fileno()), *modules),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._numbers = count()
        self._running: dict[int, ForkedProcess] = {}
        self.silent = False
        """Whether the template has ended, so that ends of processes are no longer reported."""

    @property
    def runs(self) -> bool:
        """Whether it can start processes."""
        return self._process.poll() is None

    def connection(self) -> socket.socket:
        """A further connection, to pass to a process. Raises `OSError`."""
        ours, theirs = _pair()
        with theirs:
            send(self._connection, Join(), (theirs.fileno(),))
        return ours

    def spawn(
        self,
        module: str,
        arguments: Sequence[str],
        files: Sequence[int],
        *,
        title: str,
        environment: Mapping[str, str],
    ) -> ForkedProcess:
        """Start a process in this one's working directory, which continues when this one ends.

        It calls `main` of `module`; `files` are its standard input, output and errors, and what
        follows them. Waits while the template imports its modules. Raises `OSError` where it has
        ended.
        """
        request = Spawn(
            number=next(self._numbers),
            title=title,
            module=module,
            arguments=tuple(arguments),
            environment=dict(environment),
            folder=os.getcwd(),
            ends=False,
        )
        send(self._connection, request, files)
        while True:
            notice = self._receive()
            if notice is None:
                raise ConnectionError("the template has ended")
            if isinstance(notice, Spawned) and notice.number == request.number:
                process = self._running[notice.pid] = ForkedProcess(self, notice.pid)
                return process

    def look(self, within_s: float = 0.0) -> None:
        """Learn which processes have ended, or wait for the first."""
        while not self.silent and select.select([self._connection], [], [], within_s)[0]:
            self._receive()
            within_s = 0.0

    def _receive(self) -> Spawned | Exited | None:
        received = receive(self._connection, NOTICES)
        if received is None:
            self.silent = True
            return None
        notice, _ = received
        if isinstance(notice, Exited) and (process := self._running.pop(notice.pid, None)):
            process.returncode = notice.code
        return notice

    def close(self) -> None:
        """End the template, unless others are connected to it."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.0)


class ForkedProcess:
    """A process started by a template: the required part of `subprocess.Popen`."""

    def __init__(self, template: Template, pid: int) -> None:
        self._template = template
        self.pid = pid
        self.returncode: int | None = None
        """As in `subprocess.Popen`."""

    def poll(self) -> int | None:
        """The return code, if it has ended."""
        self._template.look()
        if self.returncode is None and self._template.silent and not _runs(self.pid):
            self.returncode = -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        until_s = time.monotonic() + (float("inf") if timeout is None else timeout)
        while self.poll() is None:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            if self._template.silent:
                time.sleep(min(left_s, 0.05))
            else:
                self._template.look(min(left_s, 60.0))
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
