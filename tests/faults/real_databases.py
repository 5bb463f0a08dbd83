"""The databases of control centres that are real processes, and what goes wrong with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from tests.faults.real_disks import fill
from tests.scenes.postgres import PostgresServer, postgres_server

__all__ = ["OnFile", "OnServer", "RealDatabase", "on_server"]


class RealDatabase(Protocol):
    """What a control centre writes to. Each fault returns what mends it, and none where it finds
    nothing to harm."""

    url: str
    """Empty: a file in the control centre's state folder."""

    def stand_still(self) -> Callable[[], None] | None:
        """It takes what is asked, and does nothing."""

    def fail(self) -> Callable[[], None] | None:
        """It answers nothing but errors."""


class OnFile:
    """SQLite, which another program locks, and whose disk is full."""

    url = ""

    def __init__(self, state: Path, *, small: bool) -> None:
        """`small`: whether the disk is, so that it can be filled."""
        self._state = state
        self._small = small

    def stand_still(self) -> Callable[[], None] | None:
        locking = sqlite3.connect(self._state / "jobs.db", timeout=5.0, isolation_level=None)
        try:
            locking.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            locking.close()
            return None
        return locking.close

    def fail(self) -> Callable[[], None] | None:
        return fill(self._state) if self._small else None


class OnServer:
    """PostgreSQL, which is suspended, and killed."""

    def __init__(self, server: PostgresServer) -> None:
        self.url = server.database()
        self._server = server
        self._well = True

    def stand_still(self) -> Callable[[], None] | None:
        still = ExitStack()
        return self._until(lambda: still.enter_context(self._server.standing_still()), still.close)

    def fail(self) -> Callable[[], None] | None:
        return self._until(self._server.kill, self._server.start)

    def _until(
        self, begin: Callable[[], None], end: Callable[[], None]
    ) -> Callable[[], None] | None:
        """One fault at a time: what is dead cannot be suspended."""
        if not self._well:
            return None
        self._well = False
        begin()

        def mend() -> None:
            end()
            self._well = True

        return mend


@contextmanager
def on_server() -> Iterator[OnServer]:
    """A database of a server of its own."""
    with postgres_server() as server:
        yield OnServer(server)
