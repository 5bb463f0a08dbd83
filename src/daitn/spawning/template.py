"""The process from which others are forked: `python -m daitn.spawning.template FD MODULE...`. Its
single thread imports the modules, then waits for requests on its connections and for the ends of
its children."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from typing import cast

from setproctitle import getproctitle, setproctitle

from daitn.spawning import pages
from daitn.spawning.messages import REQUESTS, Exited, Join, Spawn, Spawned, receive, send

__all__ = ["main"]

_WOKEN_BYTES = 1 << 12
_BEYOND_STREAMS = 64
"""Where files wait for their final descriptors."""


class _Client:
    """One connection, and the processes started for it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.processes: dict[int, bool] = {}
        """Whether each process is killed when the connection ends."""

    def tell(self, message: Spawned | Exited) -> None:
        with contextlib.suppress(OSError):  # Gone: its end is seen soon.
            send(self.connection, message)


class _Template:
    def __init__(self, connection: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        self._clients: list[_Client] = []
        self._join(connection)

    def serve(self) -> Spawn | None:
        """Serve until no connection is left; in a started process, return what to become."""
        while self._clients:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    self._reap()
                    continue
                spawn = self._attend(cast(_Client, key.data))
                if spawn is not None:
                    return spawn
        return None

    def _join(self, connection: socket.socket) -> None:
        client = _Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _attend(self, client: _Client) -> Spawn | None:
        received = receive(client.connection, REQUESTS)
        if received is None:
            self._part(client)
            return None
        message, files = received
        if isinstance(message, Join):
            self._join(socket.socket(fileno=files[0]))
            return None
        pid = os.fork()
        if pid == 0:
            self._become(message, files)
            return message
        for file in files:
            os.close(file)
        client.processes[pid] = message.ends
        client.tell(Spawned(number=message.number, pid=pid))
        return None

    def _part(self, client: _Client) -> None:
        """End a connection, and all processes that must end with it."""
        self._selector.unregister(client.connection)
        client.connection.close()
        self._clients.remove(client)
        for pid, ends in client.processes.items():
            if ends:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(_WOKEN_BYTES):
                pass
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                notice = Exited(pid=ended[0], code=os.waitstatus_to_exitcode(ended[1]))
                for client in self._clients:
                    if client.processes.pop(notice.pid, None) is not None:
                        client.tell(notice)

    def _become(self, spawn: Spawn, files: Sequence[int]) -> None:
        """In the new process: drop everything of the template except its imports."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for end in (self._woken, self._wakes, *(client.connection for client in self._clients)):
            end.close()
        waiting = [fcntl.fcntl(file, fcntl.F_DUPFD, _BEYOND_STREAMS) for file in files]
        for file in files:
            os.close(file)
        for place, file in enumerate(waiting):
            os.dup2(file, place)
            os.close(file)
        pages.shared = True
        os.environ.clear()
        os.environ.update(spawn.environment)
        os.chdir(spawn.folder)


def main() -> None:
    """Be a template, and then, in each started process, what was requested."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    getproctitle()  # Finds its place while the environment is as it was.
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    pages.use_huge_pages()
    spawn = _Template(connection).serve()
    if spawn is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        setproctitle(spawn.title)
        sys.argv = [spawn.module, *spawn.arguments]
        importlib.import_module(spawn.module).main()


if __name__ == "__main__":
    main()
