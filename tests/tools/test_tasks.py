"""Tasks that somebody owns."""

from __future__ import annotations

import ast
import asyncio
import contextlib
from pathlib import Path

import pytest

import daitn
from daitn.objects.errors import Unreachable
from daitn.tools.tasks import Newest, Tasks
from tests.scenes.waiting import until


async def test_what_is_begun_anew_ends_what_was_begun_before_and_both_are_owned() -> None:
    tasks, ended = Tasks(), []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # What it does as it ends takes a while.
            ended.append(number)

    for number in range(5):
        tasks.anew("one", work(number))
        await asyncio.sleep(0)
    await until(lambda: len(tasks) == 1)
    assert (len(ended), tasks.is_current("one")) == (4, True)
    tasks.anew("one", work(5))
    await asyncio.sleep(0)
    tasks.end("one")
    assert not tasks.is_current("one")
    await tasks.close()
    assert (sorted(ended), len(tasks)) == ([0, 1, 2, 3, 4, 5], 0)
    await tasks.close()


async def test_what_a_task_begins_as_its_owner_closes_is_ended_too() -> None:
    tasks, ended = Tasks(), []

    async def last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("last")

    async def first() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.spawn(last())
            await asyncio.sleep(0)
            ended.append("first")

    tasks.spawn(first())
    await asyncio.sleep(0)
    await tasks.close()
    assert (ended, len(tasks)) == (["first", "last"], 0)


async def test_a_task_that_runs_out_of_time_as_it_is_ended_ends() -> None:
    loop, tasks, limits = asyncio.get_running_loop(), Tasks(), list[asyncio.Timeout]()

    async def wait_again_and_again() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3600) as limit:
                limits.append(limit)
                await asyncio.Event().wait()

    task = tasks.repeat(wait_again_and_again, "waiting")
    await asyncio.sleep(0)
    limits[0].reschedule(loop.time())
    await asyncio.sleep(0)
    assert task.cancelling(), "its time is over, which it has not noticed yet"
    await tasks.close()
    assert task.cancelled()


async def test_what_fails_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("this went wrong")

    tasks = Tasks()
    tasks.spawn(fail(), "the one that fails")
    await until(lambda: not len(tasks))
    assert "the one that fails failed" in caplog.text
    assert "this went wrong" in caplog.text


async def test_a_round_that_fails_does_not_end_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daitn.tools.tasks.FIRST_PAUSE_S", 0.0)
    rounds = 0

    async def every_other_round_fails() -> None:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0)
        if rounds % 2:
            raise ValueError("this went wrong")

    tasks = Tasks()
    tasks.repeat(every_other_round_fails, "the watch")
    await until(lambda: rounds > 5)
    assert "a round of the watch failed" in caplog.text
    await tasks.close()
    ended = rounds
    await asyncio.sleep(0.01)
    assert rounds == ended


def test_every_loop_that_never_ends_is_watched_over() -> None:
    """Somebody goes on after a round that fails: `Tasks.repeat`, or the loop named here."""
    own = {("tasks.py", "_rounds"), ("hosted_model.py", "_run"), ("model.py", "_keep_running")}
    endless = set()
    for path in Path(daitn.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.AsyncFunctionDef) and _never_ends(function):
                endless.add((path.name, function.name))
    repeated = {("deployments.py", "_examine_forever")}
    assert endless - own == repeated


def _never_ends(function: ast.AsyncFunctionDef) -> bool:
    """A generator goes on only while somebody reads it, who gets its error."""
    if any(isinstance(node, ast.Yield) for node in ast.walk(function)):
        return False
    loops = [
        loop
        for loop in ast.walk(function)
        if isinstance(loop, ast.While) and isinstance(loop.test, ast.Constant)
    ]
    ways_out = (ast.Return, ast.Break)
    return any(not any(isinstance(x, ways_out) for x in ast.walk(loop)) for loop in loops)


async def test_what_a_round_foresaw_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daitn.tools.tasks.FIRST_PAUSE_S", 0.0)
    tasks, rounds = Tasks(), list[int]()

    async def nobody_answers() -> None:
        rounds.append(1)
        raise Unreachable("the database does not answer", fix="start it")

    tasks.repeat(nobody_answers, "the watch")
    await until(lambda: len(rounds) > 2)
    await tasks.close()
    assert "the database does not answer" in caplog.text
    assert "start it" in caplog.text
    assert "Traceback" not in caplog.text


async def test_rounds_that_never_wait_leave_time_to_others() -> None:
    tasks, rounds = Tasks(), list[int]()

    async def at_once() -> None:
        rounds.append(1)
        if len(rounds) == 100:
            raise asyncio.CancelledError  # Nothing else would end them.

    tasks.repeat(at_once, "rounds")
    for _ in range(10):
        await asyncio.sleep(0)
    await tasks.close()
    assert 1 < len(rounds) < 100


async def test_who_is_slow_to_hear_is_told_the_newest_of_each() -> None:
    tasks, told, free = Tasks(), [], asyncio.Event()

    async def tell(value: str) -> None:
        told.append(value)
        await free.wait()

    newest = Newest(tell, tasks)
    for number in range(100):
        newest.put("a", f"a{number}")
        newest.put("b", f"b{number}")
        await asyncio.sleep(0)
    assert len(tasks) == 1
    free.set()
    await until(lambda: not len(tasks))
    assert told[0].startswith("a")
    assert set(told[1:]) == {"a99", "b99"}
    newest.put("a", "again")
    await until(lambda: told[-1] == "again")
    await tasks.close()
