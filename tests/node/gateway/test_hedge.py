"""A second deployment is asked where the first is late, and the faster one's answer is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from daitn.control.queries.attempts import Attempts, Cause, Failed, GiveUp, ReportFailed, ReportLate
from daitn.control.queries.failover import Failover
from daitn.control.queries.retry_budget import RetryBudget
from daitn.node.gateway.attempts import AttemptRunner, Target
from daitn.node.gateway.deployment_answer import Answer
from daitn.topology.qrrt.snapshot import Paths
from tests.scenes.leaping_loop import LeapingLoop

LATE_S = 0.02


def runner(rows: int, target: Target) -> tuple[AttemptRunner, Attempts]:
    """Of a real machine over so many rows, all of them reached directly."""
    near = np.zeros(rows)
    account = Attempts(Paths(near, near, np.full(rows, -1), (), np.ones(rows, np.bool_)))
    machine = Failover(
        range(rows), account, RetryBudget(), most=rows, late_after_s=lambda row: LATE_S
    )
    return AttemptRunner(machine, target), account


class NobodyAnswersError(Exception):
    """No row does."""


class Given:
    """Stands for an answer."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Rows:
    """Rows that answer after some seconds, never, or not at all."""

    def __init__(self, **seconds: float | None) -> None:
        """`a=0.1` answers, `a=None` fails at once, `a=-0.1` fails after that."""
        self._seconds = list(seconds.values())
        self.taken = 0
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.overtaken: list[int] = []
        self.given: list[Given] = []
        self.when_given: Callable[[], object] = lambda: None

    async def ask(self, row: int) -> Answer | Failed:
        self.asked.append(row)
        seconds = self._seconds[row]
        try:
            await asyncio.sleep(abs(seconds or 0.0))
        except asyncio.CancelledError:
            self.cancelled.append(row)
            raise
        if seconds is None or seconds < 0:
            return Failed(row, Cause.FAILED)
        self.given.append(Given(row))
        self.when_given()
        return cast(Answer, self.given[-1])

    def report(self, command: ReportFailed | ReportLate) -> None:
        if isinstance(command, ReportLate):
            self.overtaken.append(command.row)

    def error(self, why: GiveUp) -> Exception:
        return NobodyAnswersError()

    async def answer(self) -> int | None:
        attempts, account = runner(len(self._seconds), self)
        try:
            answer = await attempts.answer()
        except NobodyAnswersError:
            return None
        finally:
            self.taken = account.count
            await asyncio.sleep(0)
        return cast(Given, answer).row


@pytest.mark.parametrize(
    ("rows", "answers", "asked", "overtaken", "cancelled"),
    [
        (Rows(a=0.0, b=0.0), 0, [0], [], []),
        (Rows(a=None, b=0.0), 1, [0, 1], [], []),
        (Rows(a=9.0, b=0.01), 1, [0, 1], [0], [0]),
        (Rows(a=0.1, b=9.0), 0, [0, 1], [1], [1]),
        (Rows(a=9.0, b=None, c=0.01), 2, [0, 1, 2], [0], [0]),
        (Rows(a=0.1, b=None), 0, [0, 1], [], []),
        (Rows(a=-0.05, b=0.2, c=9.0), 1, [0, 1, 2], [2], [2]),
        (Rows(a=-0.05, b=9.0, c=0.01), 2, [0, 1, 2], [1], [1]),
        (Rows(a=-0.05, b=0.1), 1, [0, 1], [], []),
        (Rows(a=-0.05, b=-0.1, c=None), None, [0, 1, 2], [], []),
        (Rows(a=0.1, b=9.0, c=9.0), 0, [0, 1], [1], [1]),
        (Rows(a=0.1), 0, [0], [], []),
        (Rows(a=-0.1), None, [0], [], []),
    ],
)
def test_the_first_answer_counts_and_the_other_is_not_waited_for(
    rows: Rows,
    answers: int | None,
    asked: list[int],
    overtaken: list[int],
    cancelled: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        assert await rows.answer() == answers
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        clock = SimpleNamespace(monotonic=runner.get_loop().time)
        monkeypatch.setattr("daitn.node.gateway.attempts.time", clock)
        runner.run(check())
    assert rows.asked == asked
    # None was taken and not asked: that would cost a retry.
    assert rows.taken == len(asked)
    assert rows.overtaken == overtaken
    assert rows.cancelled == cancelled


@pytest.mark.parametrize("after_s", [0.005, 0.05])
async def test_who_gives_up_gives_up_all_that_are_asked(after_s: float) -> None:
    rows = Rows(a=9.0, b=9.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(after_s):
            await rows.answer()
    await asyncio.sleep(0)
    assert rows.cancelled == rows.asked


async def test_a_deadline_in_the_same_moment_as_a_faster_answer_counts() -> None:
    """Whoever cancels while a hedge interrupts is heard."""
    rows = Rows(a=9.0, b=0.0)
    asking = asyncio.create_task(rows.answer())
    rows.when_given = asking.cancel
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert all(given.closed for given in rows.given)


async def test_an_answer_in_the_moment_in_which_it_is_late_stops_the_other_only() -> None:
    rows = Rows(a=LATE_S / 2, b=9.0)
    asyncio.get_running_loop().call_soon(time.sleep, 2 * LATE_S)
    assert await rows.answer() == 0
    await asyncio.sleep(0)
    assert rows.taken == 2
    assert rows.asked == [0]


async def test_what_came_while_its_asker_was_cancelled_is_closed() -> None:
    rows = Rows(a=-0.04, b=0.1)
    asking = asyncio.create_task(rows.answer())
    loop = asyncio.get_running_loop()
    rows.when_given = lambda: loop.call_soon(asking.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert [given.closed for given in rows.given] == [True]


async def test_what_fails_in_the_second_task_is_told() -> None:
    class Defect(Rows):
        async def ask(self, row: int) -> Answer | Failed:
            if row:
                raise ValueError("a defect")
            return await super().ask(row)

    with pytest.raises(ValueError, match="a defect"):
        await Defect(a=9.0, b=0.0).answer()
