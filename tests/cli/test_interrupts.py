"""What a command does until it is asked to stop."""

from __future__ import annotations

import asyncio

import pytest

from daitn.cli.interrupts import until


class Work:
    """Goes on for ever, and says how it ended."""

    def __init__(self) -> None:
        self.ended = False

    async def go(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_work_is_abandoned_when_asked_to_stop() -> None:
    stopping, work = asyncio.Event(), Work()
    doing = asyncio.create_task(until(stopping, work.go()))
    await asyncio.sleep(0)
    stopping.set()
    await doing
    assert work.ended


async def test_nothing_of_it_goes_on_when_it_is_cancelled() -> None:
    before, work = asyncio.all_tasks(), Work()
    doing = asyncio.create_task(until(asyncio.Event(), work.go()))
    await asyncio.sleep(0.01)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert work.ended
    assert asyncio.all_tasks() == before


async def test_what_work_raises_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await until(asyncio.Event(), fails())
