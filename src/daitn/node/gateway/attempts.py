"""Carrying out what a failover machine commands, in an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from daitn.control.queries.attempts import (
    Answered,
    Ask,
    Begun,
    BrokenOff,
    Fact,
    Failed,
    GiveUp,
    Late,
    Stop,
    TellFailed,
    TellLate,
)
from daitn.control.queries.failover import Failover
from daitn.node.gateway.answer import Answer

__all__ = ["AttemptRunner", "Target", "drop"]

_BEGUN = Begun()


class Target(Protocol):
    """Asks rows on behalf of a runner. It does not know its runner: that would be a cycle, and keep
    what a query leaves behind until the next look for cycles."""

    async def ask(self, row: int) -> Answer | Failed:
        """Ask a row."""
        ...

    def tell(self, told: TellFailed | TellLate) -> None:
        """Tell the topology."""
        ...

    def error(self, why: GiveUp) -> Exception:
        """What is raised where no row answers."""
        ...


class AttemptRunner:
    """Carries out a machine's commands in the task that wants the answer: few answers are late, and
    a task for each would cost as much as reading its request. A second attempt beside the first has
    a task of its own, and interrupts the first where it is faster. Another row takes the place of
    one that failed in the same task.
    """

    __slots__ = (
        "_beside",
        "_failover",
        "_given_up",
        "_interrupts",
        "_late",
        "_own",
        "_row_beside",
        "_target",
    )

    def __init__(self, failover: Failover, target: Target) -> None:
        self._failover = failover
        self._target = target
        self._late: asyncio.TimerHandle | None = None
        self._own: asyncio.Task[object] | None = None
        """While an attempt is under way in it."""
        self._interrupts = False
        self._beside: asyncio.Task[Answer | None] | None = None
        self._row_beside = -1
        self._given_up: GiveUp | None = None

    async def again(self, row: int, rows: tuple[int, ...] | None) -> Answer:
        """Another answer, where that of `row` broke off: of `rows` only, or of those that were
        not asked yet. Raises the target's error."""
        return await self.answer(BrokenOff(row, rows))

    async def answer(self, fact: Fact = _BEGUN) -> Answer:
        """The first that comes. `fact`: why one is wanted. Raises the target's error."""
        row = self._handle(fact)
        try:
            answer = None if row is None else await self._interruptible(row)
            if answer is None and self._beside is not None:
                answer = await self._beside
                self._beside, self._row_beside = None, -1
        finally:
            if self._late is not None:
                self._late.cancel()
            if self._beside is not None:
                self._drop_beside()
        if answer is None:
            assert self._given_up is not None
            raise self._target.error(self._given_up)
        return answer

    async def _interruptible(self, row: int) -> Answer | None:
        """The answer of `row` or of others in its place. None too where one beside is faster."""
        task = self._own = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        try:
            return await self._in_turn(row)
        except asyncio.CancelledError:
            # As `asyncio.timeout` does it: what others cancel stays cancelled.
            if not self._interrupts or task.uncancel() > cancelled:
                raise
            return None
        finally:
            self._own, self._interrupts = None, False

    async def _in_turn(self, row: int | None, *, beside: bool = False) -> Answer | None:
        while row is not None:
            if beside:
                self._row_beside = row
            told = await self._target.ask(row)
            if not isinstance(told, Failed):
                self._handle(Answered(row))
                return told
            row = self._handle(told)
        return None

    def _handle(self, fact: Fact) -> int | None:
        """Hand a fact in and do what follows. The row that is to be asked, if there is one."""
        row: int | None = None
        for command in self._failover.handle(fact, time.monotonic()):
            match command:
                case Ask(row=row, late_after_s=late_after_s):
                    self._watch(row, late_after_s)
                case Stop(row=stopped):
                    self._stop(stopped)
                case GiveUp():
                    self._given_up = command
                case TellFailed() | TellLate():
                    self._target.tell(command)
        return row

    def _watch(self, row: int, late_after_s: float) -> None:
        """See whether a row is late, and no other."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if late_after_s < math.inf:
            self._late = asyncio.get_running_loop().call_later(late_after_s, self._is_late, row)

    def _is_late(self, late: int) -> None:
        if (row := self._handle(Late(late))) is not None:
            # Now, not when the task starts: the first may answer before, and stop this one.
            self._row_beside = row
            self._beside = asyncio.create_task(self._in_turn(row, beside=True))
            self._beside.add_done_callback(self._ended)

    def _stop(self, row: int) -> None:
        if row == self._row_beside:
            self._drop_beside()
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._own is not None and not self._interrupts:
            self._interrupts = True
            self._own.cancel()

    def _drop_beside(self) -> None:
        assert self._beside is not None
        self._beside.cancel()
        self._beside.add_done_callback(drop)
        self._beside, self._row_beside = None, -1

    def _ended(self, beside: asyncio.Task[Answer | None]) -> None:
        if beside is self._beside and not beside.cancelled() and beside.exception() is not None:
            self._interrupt()


def drop(task: asyncio.Task[Answer | None]) -> None:
    """An answer that nobody waits for any more."""
    if not task.cancelled() and task.exception() is None and (answer := task.result()) is not None:
        answer.close()
