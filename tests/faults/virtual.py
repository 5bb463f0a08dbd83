"""Virtual time: an event loop whose clock jumps to the next timer, and processes that share it.

Each process of a run is a `Machine`: what it schedules runs as that machine, which a context
variable says. So a machine has clocks of its own, can be killed without a word (nothing of it runs
any more: no `finally`, no clean-up), and can be stopped and go on. What draws randomness of the
system draws it of the seed, and what runs on threads runs at once and ends a moment later. The same
seed gives the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from daitn.tools import clock

__all__ = ["EPOCH_S", "MACHINE", "Machine", "VirtualLoop", "virtual_time"]

EPOCH_S = 1_800_000_000.0
"""The true time at which every run begins."""
_THREAD_S = 0.004
"""What runs on a thread takes up to so long."""


class Machine:
    """One process of a run, as it lives once: a restart is another one."""

    def __init__(self, name: str, loop: VirtualLoop, ahead_s: float = 0.0) -> None:
        """`ahead_s`: of its wall clock, before the true time."""
        self.name = name
        self.loop = loop
        self.ahead_s = ahead_s
        self.dead = False
        self.stopped = False
        self.full = False
        """Whether its disk has no room."""
        self.held: list[Callable[[], object]] = []
        """What is due while it is stopped."""
        self.epoch_s = self.wall_s() - loop.time()
        """Of its process's time, which counts from when it started: see `daitn.tools.clock`."""

    def wall_s(self) -> float:
        return EPOCH_S + self.loop.time() + self.ahead_s

    def steady_s(self) -> float:
        return self.epoch_s + self.loop.time()

    def not_before(self, at_s: float) -> None:
        self.epoch_s = max(self.epoch_s, at_s - self.loop.time())

    def go_on(self) -> None:
        """Let it do what has become due while it was stopped."""
        self.stopped = False
        held, self.held = self.held, []
        for due in held:
            self.loop.call_soon(due, context=self.context())

    def context(self) -> contextvars.Context:
        """A context in which code runs as this machine."""
        fresh = contextvars.Context()
        fresh.run(MACHINE.set, self)
        return fresh


MACHINE: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("machine", default=None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 1000 s."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._now_s = 1000.0
        self._rng = rng
        self._due: list[tuple[float, int, asyncio.TimerHandle]] = []
        """Timers, those of one moment in the order in which they were set."""
        self._numbers = itertools.count()
        self.steps = 0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        """In place of `BaseEventLoop`'s: nothing comes from outside, and time passes at once."""
        due, ready = self._due, self._ready  # type: ignore[attr-defined]
        if not ready:
            while due and due[0][2].cancelled():
                heapq.heappop(due)
            if not due:
                raise RuntimeError("nothing will ever happen in this run again")
            self._now_s = max(self._now_s, due[0][0])
        while due and due[0][0] <= self._now_s:
            ready.append(heapq.heappop(due)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays until it is due."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        machine = MACHINE.get() if context is None else context.get(MACHINE)
        if machine is not None:
            callback, args = self._as_machine, (machine, callback, args)
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        machine = MACHINE.get() if context is None else context.get(MACHINE)
        if machine is not None:
            callback, args = self._as_machine, (machine, callback, args)
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._due, (when, next(self._numbers), handle))
        return handle

    def _as_machine(
        self, machine: Machine, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        if machine.dead:
            return
        if machine.stopped:
            machine.held.append(lambda: callback(*args))
            return
        self.steps += 1
        callback(*args)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, call: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            result, error = call(*args), None
        except Exception as raised:
            result, error = None, raised

        def end() -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self._rng.random() * _THREAD_S, end)
        return future


@contextlib.contextmanager
def virtual_time(loop: VirtualLoop, rng: random.Random) -> Iterator[None]:
    """Have all code ask the loop for the time, and the seed for randomness."""

    def machine() -> Machine:
        return MACHINE.get() or outside

    outside = Machine("outside", loop)
    bytes_ = random.Random(rng.random())
    patches: list[tuple[Any, str, Any]] = [
        (time, "time", lambda: machine().wall_s()),
        (time, "monotonic", loop.time),
        (time, "perf_counter", loop.time),
        (clock, "elapsed_s", lambda: machine().steady_s()),
        (clock, "not_before", lambda at_s: machine().not_before(at_s)),
        (clock, "_epoch_s", 0.0),
        (os, "urandom", bytes_.randbytes),
        (random, "_urandom", bytes_.randbytes),
        (os, "fsync", lambda file: None),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
