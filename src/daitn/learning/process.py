"""One training worker, seen from the node: start it, ask it one thing at a time, end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import NoReturn

import msgspec

from daitn.learning.commands import (
    HEADER,
    MAX_FRAME_BYTES,
    Advanced,
    Command,
    Failed,
    Finished,
    Ready,
    Reply,
    framed,
)
from daitn.learning.recipe import Progress
from daitn.objects.errors import WorkFailed

__all__ = ["WorkerProcess"]

_log = logging.getLogger(__name__)

_START_WITHIN_S = 120.0
"""Importing PyTorch takes 1.5 s on a warm disk; a loaded machine with a cold one, far longer."""
_REST_OF_FRAME_WITHIN_S = 10.0
"""A worker writes a frame at once, so a frame that does not end is no frame."""
_REAP_WITHIN_S = 5.0
_TAIL_BYTES = 4096
_LAST_LINE_CHARS = 200


class WorkerProcess:
    """A running worker. Made by `start`."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._requests = process.stdin
        self._replies = process.stdout
        self._tail = b""
        self._killed = False
        self._decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
        self._log_task = asyncio.create_task(self._follow(process.stderr))

    @classmethod
    async def start(cls, threads: int) -> WorkerProcess:
        """Start a worker on `threads` processors and wait until its engine is loaded.

        Raises `WorkFailed` if it does not come up.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "daitn.learning.worker", "--threads", str(threads)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment(threads),
            start_new_session=True,
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                reply = await worker._receive()
            if not isinstance(reply, Ready):
                await worker._give_up("said something before it was ready")
        except TimeoutError:
            await worker._give_up(f"was not ready after {_START_WITHIN_S:g} s")
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, command: Command, watch: Callable[[Progress], None]) -> msgspec.Raw:
        """Have `command` carried out; returns the MessagePack of its result.

        Raises what the recipe raised, or `WorkFailed`. Whatever else ends the wait, be it a
        cancellation or an exception out of `watch`, ends the worker too: it is busy with
        something that nobody waits for.
        """
        request = framed(command)
        try:
            with contextlib.suppress(ConnectionError):
                self._requests.write(request)
                await self._requests.drain()
            while True:
                match await self._receive():
                    case Advanced(progress=progress):
                        watch(progress)
                    case Finished(result=result):
                        return result
                    case Failed() as failed:
                        break
                    case Ready():
                        await self._give_up("said that it was ready while it was at work")
        except BaseException:
            await self.kill()
            raise
        if failed.traceback:
            _log.error("a recipe failed\n%s", failed.traceback)
        raise failed.error.error()

    async def kill(self) -> None:
        """End the worker and whatever it started, now."""
        if self.alive:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._requests.close()
        await self._reap()

    async def _reap(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_WITHIN_S):
                await self._process.wait()
                await self._log_task
        self._log_task.cancel()

    async def _receive(self) -> Reply:
        try:
            header = await self._replies.readexactly(HEADER.size)
            (size,) = HEADER.unpack(header)
            if size > MAX_FRAME_BYTES:
                await self._give_up(f"announced a reply of {size} bytes")
            async with asyncio.timeout(_REST_OF_FRAME_WITHIN_S):
                payload = await self._replies.readexactly(size)
            return self._decoder.decode(payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._give_up("")
        except TimeoutError:
            await self._give_up("began a reply and did not end it")
        except (msgspec.DecodeError, ValueError) as error:
            await self._give_up(f"said what is no reply ({error})")

    async def _give_up(self, nonsense: str) -> NoReturn:
        """End the worker and say why; `nonsense` is what it did wrong while it lived."""
        if not nonsense:
            await self._reap()
        ended = nonsense or self._how_it_ended()
        await self.kill()
        tail = self._tail.decode(errors="replace").strip()
        _log.error("the training worker %s; its last words:\n%s", ended, tail or "(none)")
        last_line = tail.splitlines()[-1][:_LAST_LINE_CHARS] if tail else ""
        raise WorkFailed(
            f"the training worker {ended}" + (f"; its last words: {last_line}" if tail else ""),
            fix="the log of the node that did the work says more; the next piece of work gets a "
            "new worker",
        )

    def _how_it_ended(self) -> str:
        if self._killed:
            return "was ended by its node"
        code = self._process.returncode
        if code is None:
            return "closed its output"
        if code >= 0:
            return f"ended with exit code {code}"
        hint = ": out of memory?" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({signal.Signals(-code).name}){hint}"

    async def _follow(self, stderr: asyncio.StreamReader) -> None:
        """Copy what recipes print to the node's log, and remember the end of it."""
        while chunk := await stderr.read(_TAIL_BYTES):
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            _log.info("worker: %s", chunk.decode(errors="replace").rstrip())
        await self._process.wait()
        _log.info("training worker %d ended", self._process.pid)


def _environment(threads: int) -> dict[str, str]:
    """The node's environment, with what has to be set before a library is loaded.

    Fixed thread counts and workspaces make training reproducible. Threads that sleep instead of
    spinning leave the processor to the node, and to each other: with two other busy processes on
    two cores, small networks train 30 times as fast (measured: 60 against 2 Gflop/s). The offline
    switches hold libraries to "nothing is loaded from a hub at run time".
    """
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAYON_NUM_THREADS": str(threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
