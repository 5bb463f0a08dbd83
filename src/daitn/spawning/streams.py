"""Starts processes from a template in an event loop, with streams for communication."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.streams import FlowControlMixin
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count

from daitn.spawning.messages import NOTICES, Spawn, Spawned, receive, send

__all__ = ["Spawner", "StreamedProcess"]


class StreamedProcess:
    """A process started by a template: the required part of `asyncio.subprocess.Process`."""

    def __init__(
        self,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.pid = 0
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        """Record its end."""
        self.returncode = code
        self._ended.set()

    async def wait(self) -> int:
        """Its return code, once it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


class Spawner:
    """An event loop's connection to a template, which kills all processes started over it when it
    ends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._numbers = count()
        self._starting: dict[int, tuple[StreamedProcess, asyncio.Future[None]]] = {}
        self._running: dict[int, StreamedProcess] = {}
        self.lost = False
        """Whether the template has ended, including everything that it started."""
        asyncio.get_running_loop().add_reader(connection.fileno(), self._read)

    async def spawn(
        self, module: str, arguments: Sequence[str], *, title: str, environment: Mapping[str, str]
    ) -> StreamedProcess:
        """Start a process that calls `main` of `module`. Raises `OSError` if the template has
        ended."""
        number = next(self._numbers)
        request = Spawn(
            number=number,
            title=title,
            module=module,
            arguments=tuple(arguments),
            environment=dict(environment),
            folder=os.getcwd(),
            ends=True,
        )
        if self.lost:
            raise ConnectionError("the template has ended")
        (reads, requests), (replies, writes), (prints, printed) = os.pipe(), os.pipe(), os.pipe()
        try:
            process = StreamedProcess(
                await _writer(requests), await _reader(replies), await _reader(prints)
            )
            send(self._connection, request, (reads, writes, printed))
        finally:
            for end in (reads, writes, printed):
                os.close(end)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starting[number] = process, started
        try:
            await started
        except BaseException:
            process.stdin.close()  # It ends at the end of its input.
            raise
        return process

    def close(self) -> None:
        """End the connection, and all processes started over it."""
        if not self.lost:
            self._lose()
        self._connection.close()

    def _read(self) -> None:
        received = receive(self._connection, NOTICES)
        if received is None:
            self._lose()
            return
        notice, _ = received
        if isinstance(notice, Spawned):
            process, started = self._starting.pop(notice.number)
            process.pid = notice.pid
            self._running[notice.pid] = process
            if not started.done():
                started.set_result(None)
        elif (ended := self._running.pop(notice.pid, None)) is not None:
            ended.end(notice.code)

    def _lose(self) -> None:
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        for _, started in self._starting.values():
            if not started.done():
                started.set_exception(ConnectionError("the template has ended"))
        for process in self._running.values():
            process.end(-signal.SIGKILL)
        self._starting.clear()
        self._running.clear()


async def _reader(end: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(end, "rb", 0))
    return reader


async def _writer(end: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        partial(FlowControlMixin, loop), os.fdopen(end, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
