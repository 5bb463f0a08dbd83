"""One training worker, seen from the node: ask it one thing at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from daitn.learning.child.frames import Ready
from daitn.learning.child.outside import ChildProcess
from daitn.learning.commands import Advanced, Command, Failed, Finished, Reply
from daitn.learning.recipe import Progress
from daitn.objects.errors import WorkFailed

__all__ = ["WorkerProcess"]

_log = logging.getLogger(__name__)


class WorkerProcess(ChildProcess[Reply]):
    """A running worker. Made by `start`."""

    name = "training worker"
    module = "daitn.learning.worker"
    replies = Reply

    async def ask(self, command: Command, watch: Callable[[Progress], None]) -> msgspec.Raw:
        """Have `command` carried out; returns the MessagePack of its result.

        Raises what the recipe raised, or `WorkFailed`. Whatever else ends the wait, be it a
        cancellation or an exception out of `watch`, ends the worker too: it is busy with
        something that nobody waits for.
        """
        try:
            await self.send(command)
            while True:
                match await self.receive():
                    case Advanced(progress=progress):
                        watch(progress)
                    case Finished(result=result):
                        return result
                    case Failed() as failed:
                        break
                    case Ready():
                        raise WorkFailed("the training worker said that it was ready at work")
        except BaseException:
            await self.kill()
            raise
        if failed.traceback:
            _log.error("a recipe failed\n%s", failed.traceback)
        raise failed.error.error()
