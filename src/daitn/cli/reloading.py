"""A running process takes over what changed in its file, where that is safe.

On SIGHUP, and when the file is replaced. Rosters, certificates and keys of this kind have ways of
their own: a roster's file is looked at every second, certificates are renewed half-way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from daitn.files.atomic import replace_file
from daitn.files.live_changes import Changes, taken_over
from daitn.objects.errors import DaitnError
from daitn.tools.tasks import Tasks

__all__ = ["RUNNING", "Reloading", "Running"]

log = logging.getLogger(__name__)

T = TypeVar("T")

RUNNING: Final = "running.json"
"""In a state folder: what the process runs with, for `daitn doctor`."""
_LOOK_S: Final = 2.0


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself in its state folder."""

    pid: int
    config: msgspec.Raw
    """As JSON, checked, with what it took over since its start."""


class Reloading(Generic[T]):
    """Rereads one process's file."""

    def __init__(
        self,
        path: Path | None,
        state: Path,
        config: T,
        read: Callable[[], T],
        live: Collection[str],
        apply: Callable[[T], None],
    ) -> None:
        """`path`: the file; none: the process has none. `read` reads and checks it. `apply` is
        given what holds from now on."""
        self._path = path
        self._state = state
        self._config = config
        self._read = read
        self._live = live
        self._apply = apply
        self._seen = self._stamp()
        self._asked = asyncio.Event()
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin. A terminal that is closed still ends what runs in it."""
        self._tell()
        if self._path is None:
            return
        if not sys.stdin.isatty():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        self._tasks.repeat(self._look, "file")

    async def close(self) -> None:
        """Reread no longer."""
        await self._tasks.close()
        (self._state / RUNNING).unlink(missing_ok=True)

    async def _look(self) -> None:
        try:
            await asyncio.wait_for(self._asked.wait(), _LOOK_S)
        except TimeoutError:
            if (stamp := self._stamp()) in (self._seen, None):
                return
            self._seen = stamp
        self._asked.clear()
        self.reread()

    def reread(self) -> Changes:
        """Take over what may change while the process runs, and say what waits for a restart."""
        try:
            stated = self._read()
        except DaitnError as error:
            log.error("the changed file is not taken: %s", error)
            return Changes((), ())
        config, changes = taken_over(self._config, stated, self._live)
        if changes.live:
            self._apply(config)
            self._config = config
            self._tell()
            log.info("taken over from the file: %s", ", ".join(changes.live))
        if changes.waiting:
            log.warning("changed in the file, in force after a restart: %s", _some(changes.waiting))
        if not changes.live and not changes.waiting:
            log.info("nothing that counts has changed in the file")
        return changes

    def _tell(self) -> None:
        running = Running(pid=os.getpid(), config=msgspec.Raw(msgspec.json.encode(self._config)))
        try:
            replace_file(self._state / RUNNING, msgspec.json.encode(running), private=True)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._state / RUNNING, error.strerror)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path) if self._path is not None else None
        except OSError:
            return None
        return None if status is None else (status.st_mtime_ns, status.st_size)


def _some(fields: tuple[str, ...]) -> str:
    more = f" and {len(fields) - 10} more" if len(fields) > 10 else ""
    return ", ".join(fields[:10]) + more
