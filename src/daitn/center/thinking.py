"""Runs computations off the event loop, one at a time.

Threads take turns at the interpreter, and the event loop waits while several of them have theirs.
With decisions on six threads it answered 50 to 80 ms late in the median and 700 to 850 ms in one of
a hundred cases, with all on one thread 20 ms and 125 ms, measured on a machine that had little time
for either. More threads decide no more in the same time: what takes long is Python.

A thread that computes keeps the interpreter for `sys.getswitchinterval()`, 5 ms by default,
whenever the event loop let go of it, as it does for each statement of the journal. With 0.5 ms, the
slowest commands of a busy control centre take a third to a half of the time, and decisions no
longer: `benchmarks.center_load`, in turns.

What waits for its turn holds no topology, and decides by what is known when its turn has come.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

__all__ = ["Thinking"]

Value = TypeVar("Value")
SWITCH_INTERVAL_S: Final = 0.0005


class Thinking:
    """A thread, started when there is something to do."""

    def __init__(self, name: str) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turn = asyncio.Lock()

    async def of(self, prepare: Callable[[], Callable[[], Value]]) -> Value:
        """The result of the work that `prepare` returns, which is called on the event loop once all
        earlier calls are done. Raises what they raise."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        async with self._turn:
            work = prepare()
            return await loop.run_in_executor(self._thread, partial(context.run, work))

    def close(self) -> None:
        """Accept nothing more, and forget what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)
