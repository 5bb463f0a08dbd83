"""Carries out the commands of a failover machine, in an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any, Protocol

from daitn.control.queries.attempts import (
    Answered,
    Ask,
    Begun,
    BrokenOff,
    Fact,
    Failed,
    GiveUp,
    Late,
    ReportFailed,
    ReportLate,
    Stop,
)
from daitn.control.queries.failover import Failover
from daitn.node.gateway.deployment_answer import Answer

__all__ = ["AttemptRunner", "Target", "close_unused"]

_BEGUN = Begun()


class Target(Protocol):
    """Queries rows for a runner. It holds no reference to the runner: the cycle would keep a
    query's leftovers until the next garbage collection."""

    async def ask(self, row: int) -> Answer | Failed:
        """Query a row."""
        ...

    def report(self, command: ReportFailed | ReportLate) -> None:
        """Report a failed or late row to the topology."""
        ...

    def error(self, why: GiveUp) -> Exception:
        """The exception to raise if no row answers."""
        ...


class AttemptRunner:
    """Carries out a machine's commands in the task that waits for the answer: few answers are late,
    and a task for each would cost as much as reading its request.

    The same task asks the next row when one fails. A hedge, the second attempt beside a late one,
    has a task of its own, and interrupts the first attempt if it is faster.
    """

    __slots__ = (
        "_failover",
        "_failure",
        "_hedge",
        "_hedge_row",
        "_interrupted",
        "_late_timer",
        "_target",
        "_waiting_task",
    )

    def __init__(self, failover: Failover, target: Target) -> None:
        self._failover = failover
        self._target = target
        self._late_timer: asyncio.TimerHandle | None = None
        self._waiting_task: asyncio.Task[object] | None = None
        """The waiting task, while it runs an attempt."""
        self._interrupted = False
        self._hedge: asyncio.Task[Answer | None] | None = None
        self._hedge_row = -1
        self._failure: GiveUp | None = None

    async def replace(self, row: int, reason: str, rows: tuple[int, ...] | None) -> Answer:
        """Another answer after that of `row` broke off for a reason: from `rows` only, or from
        those not queried yet. Raises the target's error."""
        return await self.answer(BrokenOff(row, rows, reason))

    async def answer(self, fact: Fact = _BEGUN) -> Answer:
        """The first answer. `fact`: why it is needed. Raises the target's error."""
        row = self._handle(fact)
        try:
            answer = None if row is None else await self._interruptible(row)
            if answer is None and self._hedge is not None:
                answer = await self._hedge
                self._hedge, self._hedge_row = None, -1
        finally:
            if self._late_timer is not None:
                self._late_timer.cancel()
            if self._hedge is not None:
                self._drop_hedge()
        if answer is None:
            assert self._failure is not None
            raise self._target.error(self._failure)
        return answer

    async def _interruptible(self, row: int) -> Answer | None:
        """The answer of `row` or of its replacements; none if all failed or the hedge was
        faster."""
        task = self._waiting_task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        try:
            return await self._ask_in_turn(row)
        except asyncio.CancelledError:
            # As `asyncio.timeout` does: a cancellation from outside passes through.
            if not self._interrupted or task.uncancel() > cancelled:
                raise
            return None
        finally:
            self._waiting_task, self._interrupted = None, False

    async def _ask_in_turn(self, row: int | None, *, hedge: bool = False) -> Answer | None:
        while row is not None:
            if hedge:
                self._hedge_row = row
            result = await self._target.ask(row)
            if not isinstance(result, Failed):
                self._handle(Answered(row))
                return result
            row = self._handle(result)
        return None

    def _handle(self, fact: Fact) -> int | None:
        """Pass a fact to the machine and carry out its commands. Returns the row to query next, if
        any."""
        row: int | None = None
        for command in self._failover.handle(fact, time.monotonic()):
            match command:
                case Ask(row=row, late_after_s=late_after_s):
                    self._watch(row, late_after_s)
                case Stop(row=stopped):
                    self._stop(stopped)
                case GiveUp():
                    self._failure = command
                case ReportFailed() | ReportLate():
                    self._target.report(command)
        return row

    def _watch(self, row: int, late_after_s: float) -> None:
        """Start the timer that reports this row late; there is one at a time."""
        if self._late_timer is not None:
            self._late_timer.cancel()
            self._late_timer = None
        if late_after_s < math.inf:
            self._late_timer = asyncio.get_running_loop().call_later(
                late_after_s, self._on_late, row
            )

    def _on_late(self, late_row: int) -> None:
        if (row := self._handle(Late(late_row))) is not None:
            # Set now, not when the task starts: the first attempt may answer before, and stop the
            # hedge.
            self._hedge_row = row
            self._hedge = asyncio.create_task(self._ask_in_turn(row, hedge=True))
            self._hedge.add_done_callback(self._hedge_ended)

    def _stop(self, row: int) -> None:
        if row == self._hedge_row:
            self._drop_hedge()
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._waiting_task is not None and not self._interrupted:
            self._interrupted = True
            self._waiting_task.cancel()

    def _drop_hedge(self) -> None:
        assert self._hedge is not None
        self._hedge.cancel()
        self._hedge.add_done_callback(close_unused)
        self._hedge, self._hedge_row = None, -1

    def _hedge_ended(self, hedge: asyncio.Task[Answer | None]) -> None:
        if hedge is self._hedge and not hedge.cancelled() and hedge.exception() is not None:
            self._interrupt()


def close_unused(task: asyncio.Task[Any]) -> None:
    """Close the answer of a task that nobody awaits, if it has one."""
    if task.cancelled() or task.exception() is not None:
        return
    if (answer := task.result()) is not None and not isinstance(answer, Exception):
        answer.close()
