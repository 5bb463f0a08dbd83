"""A TCP relay whose link can be slow, silent or cut, as real links are."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from typing import Any

from tests.scenes.ports import free_port
from tests.scenes.waiting import PATIENCE_S

__all__ = ["RecordingRelay", "Relay"]

_AGAIN_S = 0.2
"""After this, TCP sends again what was lost (RFC 6298; Linux' least)."""


class Relay:
    """Relays connections to `port` on this machine, from a port of its own.

    `delay_s` is added to each direction, by default `far_s`; `silent` lets connections open and
    passes nothing on; of what a link loses, a share of `loss`, it sends again later and later, as
    TCP does; `cut` closes those that are open and refuses new ones.
    """

    def __init__(self, port: int = 0, far_s: float = 0.0) -> None:
        self.target = port or free_port()
        self.port = free_port()
        self.delay_s = self._far_s = far_s
        self.loss = 0.0
        self.silent = False
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Close what is open, and take nothing new."""
        self._cut = True
        self._call(self._close_all())

    def mend(self) -> None:
        self._cut = False
        self.silent = False
        self.loss = 0.0
        self.delay_s = self._far_s

    async def _listen(self) -> None:
        await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close_all(self) -> None:
        for writer in self._writers:
            if writer.transport is not None:
                writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            there, back = await self._reach()
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        await asyncio.gather(self._pass(reader, back, inward=True), self._pass(there, writer))
        self._writers -= {writer, back}

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.target)

    def _saw(self, data: bytes, inward: bool) -> None:
        """Something is passed on."""

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, inward: bool = False
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self._saw(data, inward)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._lose()
                while self.silent:  # noqa: ASYNC110 - a test sets it from another thread
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.close()

    async def _lose(self) -> None:
        """Wait until what is under way has come through."""
        again_s = _AGAIN_S
        while random.random() < self.loss:
            await asyncio.sleep(again_s)
            again_s *= 2.0

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)


class RecordingRelay(Relay):
    """Keeps what whoever connects sends to the target."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.inbound = bytearray()

    def _saw(self, data: bytes, inward: bool) -> None:
        if inward:
            self.inbound += data
