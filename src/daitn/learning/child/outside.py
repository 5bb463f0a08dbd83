"""A child process, seen from the node: start it, send to it, hear it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any, Generic, NoReturn, Self, TypeVar

import msgspec

from daitn.learning.child.frames import HEADER, MAX_FRAME_BYTES, Ready, framed
from daitn.objects.errors import WorkFailed

__all__ = ["ChildProcess"]

ReplyT = TypeVar("ReplyT")

_log = logging.getLogger(__name__)

_START_WITHIN_S = 120.0
"""Importing PyTorch takes 1.5 s on a warm disk; a loaded machine with a cold one, far longer."""
_REST_OF_FRAME_WITHIN_S = 10.0
"""A child writes a frame at once, so a frame that does not end is no frame."""
_REAP_WITHIN_S = 5.0
_TAIL_BYTES = 4096


class ChildProcess(Generic[ReplyT]):
    """A running child. Made by `start`; a subclass says what it runs and what it hears."""

    name: str
    """In sentences: `training worker`."""
    module: str
    """Run as `python -m <module> --threads N`."""
    replies: Any
    """The union of messages that it sends, `Ready` among them."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._requests = process.stdin
        self._replies = process.stdout
        self._tail = b""
        self._killed = False
        self._decoder: msgspec.msgpack.Decoder[ReplyT] = msgspec.msgpack.Decoder(self.replies)
        self._log_task = asyncio.create_task(self._follow(process.stderr))

    @classmethod
    async def start(cls, threads: int) -> Self:
        """Start one on `threads` processors and wait until its engine is loaded.

        Raises `WorkFailed` if it does not come up.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", cls.module, "--threads", str(threads)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment(threads),
            start_new_session=True,
        )
        child = cls(process)
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                reply = await child.receive()
            if not isinstance(reply, Ready):
                await child._give_up("said something before it was ready")
        except TimeoutError:
            await child._give_up(f"was not ready after {_START_WITHIN_S:g} s")
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, message: msgspec.Struct) -> None:
        """Hand a message over. A child that is gone is noticed by `receive`."""
        request = framed(message)
        with contextlib.suppress(ConnectionError):
            self._requests.write(request)
            await self._requests.drain()

    async def kill(self) -> None:
        """End the child and whatever it started, now."""
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

    async def receive(self) -> ReplyT:
        """The next message. Raises `WorkFailed` if the child ended or says what is none; it is
        ended then."""
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
        """End the child and say why; `nonsense` is what it did wrong while it lived."""
        if not nonsense:
            await self._reap()
        ended = nonsense or self._how_it_ended()
        await self.kill()
        tail = self._tail.decode(errors="replace").strip()
        _log.error("the %s %s; its last words:\n%s", self.name, ended, tail or "(none)")
        # They stay in this log: they may be of a record, or of somebody's question.
        raise WorkFailed(
            f"the {self.name} {ended}",
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
        _log.info("%s %d ended", self.name, self._process.pid)


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
