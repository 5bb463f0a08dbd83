"""What takes long is computed one after the other, and a person does not wait for jobs."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from functools import partial

import pytest

from daitn.center.thinking import Thinking

SPEAKER: ContextVar[str] = ContextVar("speaker", default="nobody")


async def test_it_does_one_thing_after_another_and_others_do_not_wait_for_it() -> None:
    jobs, asked = Thinking("jobs"), Thinking("asked")
    go_on, order = threading.Event(), list[int]()

    def first() -> None:
        go_on.wait(30.0)
        order.append(1)

    waiting = [asyncio.create_task(jobs.of(lambda: first))]
    waiting += [asyncio.create_task(jobs.of(partial(partial, order.append, at))) for at in (2, 3)]
    assert await asked.of(lambda: lambda: 7) == 7
    assert order == []
    go_on.set()
    await asyncio.gather(*waiting)
    assert order == [1, 2, 3]
    jobs.close()
    asked.close()


async def test_what_waits_is_prepared_once_its_turn_has_come() -> None:
    """It decides by what is known then, and holds nothing until then."""
    thinking, go_on, known = Thinking("jobs"), threading.Event(), [1]
    first = asyncio.create_task(thinking.of(lambda: partial(go_on.wait, 30.0)))
    second = asyncio.create_task(thinking.of(lambda: partial(sum, tuple(known))))
    await asyncio.sleep(0)
    known.append(2)
    go_on.set()
    assert await first
    assert await second == 3
    thinking.close()


async def test_it_computes_in_the_name_of_whoever_asks_and_raises_what_that_raises() -> None:
    thinking = Thinking("asked")
    SPEAKER.set("ann")
    assert await thinking.of(lambda: SPEAKER.get) == "ann"
    with pytest.raises(ZeroDivisionError):
        await thinking.of(lambda: lambda: 1 // 0)
    thinking.close()
