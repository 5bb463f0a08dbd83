"""Tasks that somebody owns: none is lost, none outlives its owner, none is started twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Newest", "Tasks"]

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Tasks:
    """The tasks of one owner, until each has ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._of: dict[Hashable, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None], name: str = "") -> asyncio.Task[None]:
        """Begin something. What it raises is logged."""
        task = asyncio.create_task(work, name=name or None)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def anew(self, key: Hashable, work: Coroutine[Any, Any, None], name: str = "") -> None:
        """Begin something in place of what was begun under this key and has not ended."""
        self.end(key)
        task = self._of[key] = self.spawn(work, name)
        task.add_done_callback(lambda ended: self._forget(key, ended))

    def end(self, key: Hashable) -> None:
        """End what was begun under this key; what it does as it ends is waited for in `close`."""
        task = self._of.pop(key, None)
        if task is not None:
            task.cancel()

    def is_current(self, key: Hashable) -> bool:
        """Whether something that was begun under this key has not ended."""
        return key in self._of

    async def close(self) -> None:
        """End all, and wait until they have."""
        current = asyncio.current_task()
        while tasks := self._tasks - {current}:
            for task in tasks:
                if not task.cancelling():  # What ends already may do what it does as it ends.
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Callbacks of tasks that have ended run in the next turn.
            await asyncio.sleep(0)

    def _forget(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        if self._of.get(key) is task:
            del self._of[key]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


class Newest(Generic[Value]):
    """Tells of things one after the other, and of each only what was put last: however slow who is
    told, no more waits than there are things."""

    def __init__(self, tell: Callable[[Value], Awaitable[None]], tasks: Tasks) -> None:
        self._tell = tell
        self._tasks = tasks
        self._waiting: dict[Hashable, Value] = {}
        self._telling = False

    def put(self, key: Hashable, value: Value) -> None:
        """Tell this of `key`, in place of what waits."""
        self._waiting[key] = value
        if not self._telling:
            self._telling = True
            self._tasks.spawn(self._tell_all())

    async def _tell_all(self) -> None:
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                await self._tell(self._waiting.pop(key))
        finally:
            self._telling = False
