"""A child process as seen by its node: start it, send to it, receive from it, kill it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable
from typing import Any, Generic, NoReturn, Self, TypeVar

import msgspec

from daitn.learning.child.beginning import Process, begin, environment
from daitn.learning.child.ending import ending
from daitn.learning.child.frames import (
    HEADER,
    MAX_FRAME_BYTES,
    REST_OF_FRAME_WITHIN_S,
    Ready,
    framed,
)
from daitn.learning.sandbox.policy import UNLIMITED, Confinement, Limits, Mechanism
from daitn.objects.errors import LimitExceeded, WorkFailed

__all__ = ["ChildProcess", "ProcessFailed", "ProcessOverLimit"]

ReplyT = TypeVar("ReplyT")

_log = logging.getLogger(__name__)

_START_WITHIN_S = 120.0
"""Importing PyTorch takes 1.5 s from a warm disk, far longer from a cold one under load."""
_REAP_WITHIN_S = 5.0
_TAIL_BYTES = 4096


class ProcessFailed(WorkFailed):
    """A process failed, rather than what it ran: the text is the node's and contains no data."""


class ProcessOverLimit(ProcessFailed, LimitExceeded):
    """A process was ended at a limit; the field names it."""


class ChildProcess(Generic[ReplyT]):
    """A running child, created by `start`. A subclass states what it runs and receives."""

    name: str
    """Its name in sentences: `training worker`."""
    module: str
    """Run as `python -m <module> --threads N`."""
    arguments: tuple[str, ...] = ()
    """Further arguments."""
    replies: Any
    """The union of messages that it sends, including `Ready`."""

    def __init__(self, process: Process, scratch: str) -> None:
        """`scratch`: its private folder, removed when it has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._scratch = scratch
        self._requests = process.stdin
        self._replies = process.stdout
        self._tail = b""
        self._killed = False
        self._decoder: msgspec.msgpack.Decoder[ReplyT] = msgspec.msgpack.Decoder(self.replies)
        self._log_task = asyncio.create_task(self._follow(process.stderr))

    @classmethod
    async def start(
        cls,
        threads: int,
        mechanisms: Iterable[Mechanism] = (),
        *,
        readable: Iterable[str] = (),
        limits: Limits = UNLIMITED,
        folder: str = "",
    ) -> Self:
        """Start a child on `threads` processors, behind these fences, and wait until its engine is
        loaded. It may read `readable`, files or folders, and has a private folder in `folder`.

        Raises `ProcessFailed` if it does not come up.
        """
        scratch = tempfile.mkdtemp(prefix="daitn-", dir=folder or None)
        confinement = Confinement(
            mechanisms=tuple(mechanisms), scratch=scratch, readable=tuple(readable), limits=limits
        )
        stated = msgspec.json.encode(confinement).decode()
        arguments = (*cls.arguments, "--threads", str(threads), "--sandbox", stated)
        process = await begin(cls.module, arguments, environment(threads))
        child = cls(process, scratch)
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                reply = await child.receive()
            if not isinstance(reply, Ready):
                await child._fail("sent something before it was ready")
        except TimeoutError:
            await child._fail(f"was not ready after {_START_WITHIN_S:g} s")
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def scratch(self) -> str:
        """Its own folder, which contains those of its visits."""
        return self._scratch

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, message: msgspec.Struct) -> None:
        """Send a message. `receive` notices if the child is gone."""
        request = framed(message)
        if self._requests.is_closing():
            return  # uvloop raises a `RuntimeError` at a write to what is closed.
        with contextlib.suppress(ConnectionError):
            self._requests.write(request)
            await self._requests.drain()

    async def kill(self) -> None:
        """Kill the child and its process group."""
        if self.alive:
            self._killed = True
            self._kill_group()
        self._requests.close()
        await self._reap()

    def _kill_group(self) -> None:
        """Only while the child lives or has just ended: its id may later belong to another
        process."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _reap(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_WITHIN_S):
                await self._process.wait()
                await self._log_task
        self._log_task.cancel()
        with contextlib.suppress(RecursionError):
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    async def receive(self) -> ReplyT:
        """The next message. Raises `ProcessFailed`, and kills the child, if it has ended or sends
        something malformed."""
        try:
            header = await self._replies.readexactly(HEADER.size)
            (size,) = HEADER.unpack(header)
            if size > MAX_FRAME_BYTES:
                await self._fail(f"announced a reply of {size} bytes")
            async with asyncio.timeout(REST_OF_FRAME_WITHIN_S):
                payload = await self._replies.readexactly(size)
            return self._decoder.decode(payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._fail("")
        except TimeoutError:
            await self._fail("sent an incomplete reply")
        except (msgspec.DecodeError, ValueError) as error:
            _log.error("the %s sent a malformed reply: %s", self.name, error)
            await self._fail("sent a malformed reply")

    async def _fail(self, violation: str) -> NoReturn:
        """Kill the child and raise. `violation`: what it did wrong; empty if it has ended."""
        if not violation:
            await self._reap()
        ended = violation or self._how_it_ended()
        self._kill_group()  # What it started outlives a child that crashed.
        await self.kill()
        tail = self._tail.decode(errors="replace").strip()
        _log.error("the %s %s; its last output:\n%s", self.name, ended, tail or "(none)")
        # The output stays in this log: it may quote a record, or somebody's query.
        raise ProcessFailed(
            f"the {self.name} {ended}",
            fix="see the log of the node that did the work; the next command gets a new worker",
        )

    def _how_it_ended(self) -> str:
        if self._killed:
            return "was killed by its node"
        code = self._process.returncode
        if code is None:
            return "closed its output"
        return ending(code)

    async def _follow(self, stderr: asyncio.StreamReader) -> None:
        """Copy the output of recipes to the node's log, and remember its end."""
        while chunk := await stderr.read(_TAIL_BYTES):
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            _log.info("worker: %s", chunk.decode(errors="replace").rstrip())
        await self._process.wait()
        _log.info("%s %d ended", self.name, self._process.pid)
