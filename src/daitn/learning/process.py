"""A training worker as seen by its node: it carries out one command at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from daitn.learning.child.frames import Ready
from daitn.learning.child.outside import ChildProcess, ProcessFailed, ProcessOverLimit
from daitn.learning.commands import Advanced, Kept, Reply, Task, WorkerFailed, WorkerFinished
from daitn.learning.pulse import Pulse, processor_s
from daitn.learning.recipe import DataFault, Progress
from daitn.objects.errors import DaitnError, LimitExceeded

__all__ = ["ConsultedProcess", "ReadingProcess", "WorkerProcess"]

_log = logging.getLogger(__name__)


class WorkerProcess(ChildProcess[Reply]):
    """A running worker, created by `start`."""

    name = "training worker"
    module = "daitn.learning.worker"
    replies = Reply
    watchers = 2
    """Generations of processes that run no recipe, but watch those that do."""
    _stalled = ""

    async def _watch_pulse(self, pulse: Pulse) -> None:
        """Kill the worker if it stalls."""
        while not self._stalled:
            await asyncio.sleep(pulse.every_s)
            used_s = processor_s(self.pid, below=self.watchers)
            self._stalled = pulse.check(time.monotonic(), used_s)
        _log.error("killing the %s %d: it %s", self.name, self.pid, self._stalled)
        await self.kill()

    def _stall(self) -> ProcessFailed:
        return ProcessFailed(
            f"the {self.name} {self._stalled}",
            fix="see the log of the node that did the work; `stall_s` in its file sets how long it "
            "waits",
        )

    async def ask(
        self,
        task: Task,
        watch: Callable[[Progress], None],
        *,
        stall_s: float,
        kept: Callable[[int], None] = lambda _: None,
    ) -> msgspec.Raw:
        """Carry out a command; returns its result as MessagePack.

        Raises what the recipe raised, or `ProcessFailed`, as where there is no sign of life for
        `stall_s`. Whatever else ends the wait, be it a cancellation or an exception out of `watch`
        or `kept`, ends the worker too: it is busy with something no longer awaited.
        """
        used_s = processor_s(self.pid, below=self.watchers)
        pulse = Pulse(time.monotonic(), used_s, stall_s=stall_s)
        watching = asyncio.create_task(
            self._watch_pulse(pulse), name=f"pulse of {self.name} {self.pid}"
        )
        try:
            await self.send(task)
            while True:
                match await self.receive():
                    case Advanced(progress=progress):
                        pulse.progressed()
                        watch(progress)
                    case Kept(number=number):
                        kept(number)
                    case WorkerFinished(result=result):
                        return result
                    case WorkerFailed() as failed:
                        break
                    case Ready():
                        raise ProcessFailed("the training worker said that it was ready at work")
        except BaseException as error:
            await self.kill()
            if isinstance(error, ProcessFailed) and self._stalled:
                raise self._stall() from None
            raise
        finally:
            watching.cancel()
        if failed.traceback:
            _log.error("a recipe failed\n%s", failed.traceback)
        raise _raised(failed)


def _raised(failed: WorkerFailed) -> DaitnError:
    error = failed.error.error()
    if not failed.by_recipe:
        kind = ProcessOverLimit if isinstance(error, LimitExceeded) else ProcessFailed
        return kind(error.problem, field=error.field, fix=error.fix)
    if failed.fault is None:
        return error
    return DataFault(failed.fault, error.problem, failed.counts, field=error.field, fix=error.fix)


class ReadingProcess(WorkerProcess):
    """A worker that does not compute: recipes read data in it."""

    name = "reading worker"
    arguments = ("--no-engine",)


class ConsultedProcess(WorkerProcess):
    """A worker that sees no data: it answers questions about recipes. One process carries out all
    commands, so that answers are fast."""

    name = "consulted recipe"
    module = "daitn.learning.consulting"
