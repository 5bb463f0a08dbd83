"""Asking a second deployment where the first is unusually late: Dean and Barroso, "The tail at
scale", CACM 2013."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from daitn.node.gateway.answer import Answer

__all__ = ["Hedge", "drop"]


class Hedge:
    """Asks in the task that wants the answer: few answers are late, and a task for each would cost
    as much as reading its request. What is asked beside runs in a task of its own, and interrupts
    the first where it is faster.
    """

    def __init__(
        self,
        attempt: Callable[[int], Awaitable[Answer | None]],
        another: Callable[[], int | None],
        overtaken: Callable[[int, float], None],
    ) -> None:
        """`attempt` gives none where a row fails, `another` where none is left. `overtaken` is
        told which row was slower, and for how many seconds it had been waited for."""
        self._attempt = attempt
        self._another = another
        self._overtaken = overtaken
        self._beside: asyncio.Task[Answer | None] | None = None
        self._row_beside = -1
        self._first: asyncio.Task[object] | None = None
        """While an attempt is under way in it."""
        self._interrupts = False

    async def answer(self, row: int, late_s: float) -> Answer | None:
        """The first that comes. Once `row` takes longer than `late_s`, others are asked beside it,
        one at a time. None where all that were asked failed."""
        began_s = time.perf_counter()
        late = asyncio.get_running_loop().call_later(late_s, self._late)
        try:
            given = await self._in_turn(row, began_s)
            if given is None and self._beside is not None:
                given = await self._beside
                self._beside = None
            return given
        finally:
            late.cancel()
            if self._beside is not None:
                self._beside.cancel()
                self._beside.add_done_callback(drop)

    async def _in_turn(self, row: int | None, began_s: float) -> Answer | None:
        """The answer of `row`, or where that fails while another one is asked beside it, of the
        next. None too where the one beside is faster."""
        while row is not None:
            answer, overtaken = await self._interruptible(row)
            if overtaken:
                self._overtaken(row, time.perf_counter() - began_s)
                return None
            if answer is not None:
                if self._beside is not None and not self._beside.done():
                    self._overtaken(self._row_beside, time.perf_counter() - began_s)
                return answer
            row = None if self._beside is None else self._another()
        return None

    async def _interruptible(self, row: int) -> tuple[Answer | None, bool]:
        """The row's answer, and whether another one was faster."""
        task = self._first = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        try:
            return await self._attempt(row), False
        except asyncio.CancelledError:
            # As `asyncio.timeout` does it: what others cancel stays cancelled.
            if not self._interrupts or task.uncancel() > cancelled:
                raise
            return None, True
        finally:
            self._first = None

    def _late(self) -> None:
        if (row := self._another()) is not None:
            self._beside = asyncio.create_task(self._others(row))
            self._beside.add_done_callback(self._ended)

    async def _others(self, row: int | None) -> Answer | None:
        while row is not None:
            self._row_beside = row
            if (answer := await self._attempt(row)) is not None:
                return answer
            row = self._another()
        return None

    def _ended(self, beside: asyncio.Task[Answer | None]) -> None:
        failed = beside.cancelled() or (beside.exception() is None and beside.result() is None)
        if not failed and self._first is not None:
            self._interrupts = True
            self._first.cancel()


def drop(task: asyncio.Task[Answer | None]) -> None:
    """An answer that nobody waits for any more."""
    if not task.cancelled() and task.exception() is None and (answer := task.result()) is not None:
        answer.close()
