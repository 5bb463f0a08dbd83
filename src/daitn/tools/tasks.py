"""Tasks with an owner: none is lost, outlives its owner, or is started twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from daitn.objects.errors import DaitnError

__all__ = ["Newest", "Tasks"]

FIRST_PAUSE_S = 1.0
"""Pause after a round that failed; it doubles from one failure to the next."""
PAUSE_AT_MOST_S = 10.0
_LOOKED_AT_S = 0.1
"""Interval at which `close` checks whether a task still runs."""

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Tasks:
    """The running tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._of: dict[Hashable, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None], name: str = "") -> asyncio.Task[None]:
        """Start a task. Its errors are logged."""
        task = asyncio.create_task(work, name=name or None)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def repeat(self, round_: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Run rounds until `close`. `round_` itself waits until it is due.

        A round that fails is logged, in words where it raises a `DaitnError`, and does not end the
        others: the next one follows after a pause.
        """
        return self.spawn(self._rounds(round_, name), name)

    async def _rounds(self, round_: Callable[[], Awaitable[None]], name: str) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await round_()
                await asyncio.sleep(0)  # A round that never waits would stop everything else.
                pause_s = FIRST_PAUSE_S
                continue
            except DaitnError as error:  # Foreseen: it says what is wrong.
                log.warning("a round of %s failed, and follows in %.0f s: %s", name, pause_s, error)
            except Exception:
                log.exception("a round of %s failed; the next one follows in %.0f s", name, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_AT_MOST_S)

    def anew(self, key: Hashable, work: Coroutine[Any, Any, None], name: str = "") -> None:
        """Start a task, replacing the one that runs under this key."""
        self.end(key)
        task = self._of[key] = self.spawn(work, name)
        task.add_done_callback(lambda ended: self._forget(key, ended))

    def end(self, key: Hashable) -> None:
        """Cancel the task that runs under this key; `close` waits for it."""
        task = self._of.pop(key, None)
        if task is not None:
            task.cancel()

    def is_current(self, key: Hashable) -> bool:
        """Whether a task runs under this key."""
        return key in self._of

    async def close(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        current = asyncio.current_task()
        while tasks := self._tasks - {current}:
            for task in tasks:
                if not task.cancelling():  # A second cancel would interrupt its clean-up.
                    task.cancel()
            # Not until all have ended: `asyncio.timeout` cancels a task, too, and takes that back,
            # so one that ran out of time just now goes on and must be cancelled again.
            await asyncio.wait(tasks, timeout=_LOOKED_AT_S)
            # Callbacks of ended tasks run in the next iteration of the loop.
            await asyncio.sleep(0)

    def _forget(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if self._of.get(key) is task:
            del self._of[key]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


class Newest(Generic[Value]):
    """Sends values one after another, and only the newest of each key: however slow the receiver,
    no more values wait than there are keys."""

    def __init__(self, send: Callable[[Value], Awaitable[None]], tasks: Tasks) -> None:
        self._send = send
        self._tasks = tasks
        self._waiting: dict[Hashable, Value] = {}
        self._sending = False

    def put(self, key: Hashable, value: Value) -> None:
        """Send `value`, replacing a waiting one with this key."""
        self._waiting[key] = value
        if not self._sending:
            self._sending = True
            self._tasks.spawn(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                await self._send(self._waiting.pop(key))
        finally:
            self._sending = False
