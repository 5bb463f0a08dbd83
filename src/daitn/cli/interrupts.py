"""Commands that run until they are interrupted."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

from daitn.objects.errors import Unreachable

__all__ = ["interrupts", "retried", "until"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts() -> Iterator[asyncio.Event]:
    """Within this block, Ctrl-C and SIGTERM set the event. After it, they end the process, for
    people who do not want to wait for what is in progress."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def retried(
    opening: Callable[[], Awaitable[T]], again_s: float, stopping: asyncio.Event
) -> T | None:
    """What `opening` returns, tried again while it raises `Unreachable`; none if stopped before."""
    while not stopping.is_set():
        try:
            return await opening()
        except Unreachable as error:
            log.warning("%s; trying again", error.problem)
            await until(stopping, asyncio.sleep(again_s))
    return None


async def until(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do `work`, or abandon it when asked to stop, or when cancelled."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
