"""Applies changes of a running process's file, if that is safe.

On SIGHUP, and when the file is replaced. Rosters and certificates are handled elsewhere: a roster's
file is checked every second, certificates are renewed half-way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from daitn.files.atomic import replace_file
from daitn.files.live_changes import Changes, taken_over
from daitn.files.state_folder import ProcessState
from daitn.node.config import ReadNodeConfig
from daitn.node.config.live import NOTES
from daitn.objects.errors import DaitnError
from daitn.objects.text import some
from daitn.tools.tasks import Tasks

__all__ = ["ReadFile", "Reloading", "Running"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_S: Final = 2.0


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process's statement about itself in its state folder."""

    pid: int
    config: msgspec.Raw
    """As checked JSON, including changes since its start."""


class ReadFile(Generic[T]):
    """One process's file, and whether it may have changed since it was read.

    From the first reading on, SIGHUP does not end the process: it may have to wait for others
    before it is ready. Closing a terminal still ends what runs in it.
    """

    def __init__(self, path: Path | None, read: Callable[[], T]) -> None:
        """`path`: the file; `None` means the process has none. `read` reads and checks it. Needs a
        running event loop."""
        self.path = path
        self._read = read
        self._seen: tuple[int, int] | None = None
        self._signalled = asyncio.Event()
        self._watched = False
        """Whether anybody waits for changes."""
        if path is not None and not os.isatty(0):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._note_signal)

    def read(self) -> T:
        """What it says now. Raises `DaitnError`."""
        self._seen = self._stamp()
        self._signalled.clear()
        return self._read()

    async def changed(self) -> bool:
        """Wait for a moment, or for a signal; returns whether it is to be read again."""
        self._watched = True
        try:
            await asyncio.wait_for(self._signalled.wait(), _LOOK_S)
        except TimeoutError:
            return self._stamp() not in (self._seen, None)
        return True

    def _note_signal(self) -> None:
        self._signalled.set()
        if not self._watched:
            log.info("it is not ready yet, and reads its file again when it is")

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path) if self.path is not None else None
        except OSError:
            return None
        return None if status is None else (status.st_mtime_ns, status.st_size)


class Reloading(Generic[T]):
    """Rereads one process's file."""

    def __init__(
        self,
        file: ReadFile[T],
        state: Path,
        config: T,
        live: Collection[str],
        apply: Callable[[T], None],
    ) -> None:
        """`config`: what `file` said. `apply` gets the settings from now on; it raises `DaitnError`
        for those that it cannot take, and then nothing has changed."""
        self._file = file
        self._state = state
        self._config = config
        self._live = live
        self._apply = apply
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin."""
        self._tell()
        if self._file.path is not None:
            self._tasks.repeat(self._look, "file")

    async def close(self) -> None:
        """Stop rereading."""
        await self._tasks.close()
        (self._state / ProcessState.RUNNING).unlink(missing_ok=True)

    async def _look(self) -> None:
        if await self._file.changed():
            self.reread()

    def reread(self) -> Changes:
        """Apply what may change while the process runs, and report what waits for a restart."""
        try:
            stated = self._file.read()
            config, changes = taken_over(self._config, stated, self._live, NOTES)
            _tell_left_out(self._config, stated)
            if changes.live:
                self._apply(config)
        except DaitnError as error:
            log.error("the changed file is not taken: %s", error)
            return Changes((), ())
        if changes.live:
            self._config = config
            self._tell()
            log.info("taken over from the file: %s", ", ".join(changes.live))
        if changes.waiting:
            log.warning(
                "changed in the file, in force after a restart: %s", some(changes.waiting, 10)
            )
        if not changes.live and not changes.waiting:
            log.info("nothing that counts has changed in the file")
        return changes

    def _tell(self) -> None:
        running = Running(pid=os.getpid(), config=msgspec.Raw(msgspec.json.encode(self._config)))
        path = self._state / ProcessState.RUNNING
        try:
            replace_file(path, msgspec.json.encode(running), private=True)
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error.strerror)


def _tell_left_out(before: object, stated: object) -> None:
    """Say which entries of a changed file are not valid: what they name is missing after the next
    start."""
    known = before.left_out if isinstance(before, ReadNodeConfig) else ()
    for entry in stated.left_out if isinstance(stated, ReadNodeConfig) else ():
        if entry not in known:
            told = "%s %s is not valid, and is left out after a restart: %s"
            log.error(told, entry.field, entry.name, entry.reason)
