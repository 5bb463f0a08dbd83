"""One training worker, seen from the node: ask it one thing at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from daitn.learning.child.frames import Ready
from daitn.learning.child.outside import ChildProcess
from daitn.learning.commands import Advanced, Command, Reply, WorkerFailed, WorkerFinished
from daitn.learning.pulse import Pulse, processor_s
from daitn.learning.recipe import Progress
from daitn.objects.errors import WorkFailed

__all__ = ["ConsultedProcess", "WorkerProcess"]

_log = logging.getLogger(__name__)


class WorkerProcess(ChildProcess[Reply]):
    """A running worker. Made by `start`."""

    name = "training worker"
    module = "daitn.learning.worker"
    replies = Reply
    _stalled = ""

    async def _look(self, pulse: Pulse) -> None:
        """End a worker that does not get on."""
        while not self._stalled:
            await asyncio.sleep(pulse.every_s)
            self._stalled = pulse.look(time.monotonic(), processor_s(self.pid))
        _log.error("the %s %d %s; it is ended", self.name, self.pid, self._stalled)
        await self.kill()

    def _stall(self) -> WorkFailed:
        return WorkFailed(
            f"the {self.name} {self._stalled}",
            fix="the log of the node that did the work says more; `stall_s` in its file says how "
            "long it waits",
        )

    async def ask(
        self, command: Command, watch: Callable[[Progress], None], *, stall_s: float
    ) -> msgspec.Raw:
        """Have `command` carried out; returns the MessagePack of its result.

        Raises what the recipe raised, or `WorkFailed`, as where there is no sign of life for
        `stall_s`. Whatever else ends the wait, be it a
        cancellation or an exception out of `watch`, ends the worker too: it is busy with
        something that nobody waits for.
        """
        pulse = Pulse(time.monotonic(), processor_s(self.pid), stall_s=stall_s)
        looking = asyncio.create_task(self._look(pulse), name=f"pulse of {self.name} {self.pid}")
        try:
            await self.send(command)
            while True:
                match await self.receive():
                    case Advanced(progress=progress):
                        pulse.told()
                        watch(progress)
                    case WorkerFinished(result=result):
                        return result
                    case WorkerFailed() as failed:
                        break
                    case Ready():
                        raise WorkFailed("the training worker said that it was ready at work")
        except BaseException as error:
            await self.kill()
            if isinstance(error, WorkFailed) and self._stalled:
                raise self._stall() from None
            raise
        finally:
            looking.cancel()
        if failed.traceback:
            _log.error("a recipe failed\n%s", failed.traceback)
        raise failed.error.error()


class ConsultedProcess(WorkerProcess):
    """A worker that does not compute: it is asked what recipes are and need."""

    name = "consulted recipe"
    module = "daitn.learning.consulting"
