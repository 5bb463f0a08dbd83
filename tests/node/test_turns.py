from __future__ import annotations

import asyncio

import pytest

from daitn.node.training.turns import Turns


class Work:
    """Pieces of work that came in this order, and had their turns in that of `had`."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.had: list[int] = []
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.ends: dict[int, asyncio.Event] = {}

    def come(self, count: int) -> list[int]:
        return [self.turns.join() for _ in range(count)]

    async def ready(self, *places: int) -> None:
        """These wait now, in this order."""
        for place in places:
            self.ends[place] = asyncio.Event()
            self.tasks[place] = asyncio.create_task(self._work(place))
            await asyncio.sleep(0)

    async def end(self, place: int) -> None:
        self.ends[place].set()
        await self.tasks[place]
        await asyncio.sleep(0)

    async def _work(self, place: int) -> None:
        async with self.turns.turn(place):
            self.had.append(place)
            await self.ends[place].wait()


async def test_who_came_first_is_next_and_nobody_waits_for_who_is_not_ready() -> None:
    work = Work()
    slow, first, second, third = work.come(4)
    await work.ready(third, second, first)
    assert work.had == [third]
    await work.end(third)
    assert work.had == [third, first]
    await work.ready(slow)
    await work.end(first)
    await work.end(slow)
    await work.end(second)
    assert work.had == [third, first, slow, second]
    (late,) = work.come(1)
    await work.ready(late)
    assert work.had[-1] == late
    await work.end(late)


async def test_who_goes_away_holds_nobody_up() -> None:
    work = Work()
    first, second, third, fourth = work.come(4)
    await work.ready(first, second, third, fourth)
    work.tasks[second].cancel()
    await asyncio.sleep(0)
    work.ends[first].set()
    await asyncio.sleep(0)
    # The third was given the turn, and goes away in that very moment.
    work.tasks[third].cancel()
    with pytest.raises(asyncio.CancelledError):
        await work.tasks[third]
    await asyncio.sleep(0)
    assert work.had == [first, fourth]
    work.tasks[fourth].cancel()
    with pytest.raises(asyncio.CancelledError):
        await work.tasks[fourth]
    (late,) = work.come(1)
    await work.ready(late)
    assert work.had[-1] == late
    await work.end(late)
