"""TCP between machines in virtual time: bytes arrive in order, late over a bad link, and over a cut
one once it is mended. Whoever was killed is missed at once or after a while."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from aiohttp import connector

from daitn.tools.http import client as client_module
from daitn.tools.http import server as server_module
from tests.faults.network import FaultyNetwork
from tests.faults.virtual import MACHINE, Machine, VirtualLoop

__all__ = ["Ports"]

_RESENT_S = 0.4
"""Bytes that were lost arrive so much later."""
_HOST = "127.0.0.1"


class _Socket:
    """An address, as listened at or connected to."""

    def __init__(self, port: int) -> None:
        self.port = port

    def getsockname(self) -> tuple[str, int]:
        return _HOST, self.port

    def close(self) -> None:
        """Nothing to close."""


class Ports:
    """All ports of a run."""

    def __init__(self, loop: VirtualLoop, network: FaultyNetwork, rng: random.Random) -> None:
        self.loop = loop
        self.network = network
        self.rng = rng
        self._free = iter(range(10_000, 60_000))
        self._listening: dict[int, tuple[Machine, Callable[[], asyncio.Protocol]]] = {}
        self._ends: list[_End] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have servers listen and clients connect here."""
        connect = SimpleNamespace(
            start_connection=self._connect,
            addr_to_addr_infos=lambda address: None,
            pop_addr_infos_interleave=lambda infos, interleave: infos.clear(),
        )
        loop: Any = self.loop
        with (
            mock.patch.object(server_module, "bind", self._bind),
            mock.patch.object(client_module, "aiohappyeyeballs", connect),
            mock.patch.object(connector, "aiohappyeyeballs", connect),
            mock.patch.object(loop, "create_server", self._create_server),
            mock.patch.object(loop, "create_connection", self._create_connection),
        ):
            yield

    def vanish(self, machine: Machine, noticed_after_s: float) -> None:
        """A machine was killed."""
        for port, (listener, _) in tuple(self._listening.items()):
            if listener is machine:
                del self._listening[port]
        for end in self._ends:
            if end.machine is machine:
                self.loop.call_later(noticed_after_s, end.peer.lose, ConnectionResetError())

    def delay_s(self, sender: Machine, receiver: Machine) -> float | None:
        """How long bytes are on their way; none: they do not arrive."""
        network = self.network
        if frozenset((sender.name, receiver.name)) in network._cuts:
            return None
        now = network._weather.get((sender.name, receiver.name), network._fair)
        if now.loss >= 1.0:
            return None
        lost = self.rng.random() < now.loss
        return network._latency_s(now) + (_RESENT_S if lost else 0.0)

    def doubles(self, sender: Machine, receiver: Machine) -> bool:
        """Whether a packet from one forwarder to another comes twice."""
        now = self.network._weather.get((sender.name, receiver.name), self.network._fair)
        return now.doubled > 0 and self.rng.random() < now.doubled

    async def _bind(self, host: str, port: int) -> list[_Socket]:
        return [_Socket(port or next(self._free))]

    async def _connect(self, addr_infos: Any, **options: Any) -> _Socket:
        port = int(addr_infos[0][4][1])
        await asyncio.sleep(0.002)
        machine, listener = MACHINE.get(), self._listening.get(port)
        if listener is None:
            raise ConnectionRefusedError(111, "Connection refused")
        assert machine is not None
        while self.delay_s(machine, listener[0]) is None or listener[0].stopped:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        return _Socket(port)

    async def _create_server(self, make: Callable[[], asyncio.Protocol], **options: Any) -> Any:
        machine, port = MACHINE.get(), options["sock"].port
        assert machine is not None
        self._listening[port] = machine, make

        def close() -> None:
            if self._listening.get(port) == (machine, make):  # Another one may listen since.
                del self._listening[port]

        async def closed() -> None:
            return

        return SimpleNamespace(close=close, wait_closed=closed, sockets=[options["sock"]])

    async def _create_connection(
        self, make: Callable[[], asyncio.Protocol], **options: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        machine = MACHINE.get()
        listener = self._listening.get(options["sock"].port)
        if listener is None:
            raise ConnectionRefusedError(111, "Connection refused")
        assert machine is not None
        near, far = _End(self, machine), _End(self, listener[0])
        near.peer, far.peer = far, near
        self._ends += (near, far)
        near.protocol = make()
        near.protocol.connection_made(near)

        def accepted() -> None:
            far.protocol = listener[1]()
            far.protocol.connection_made(far)

        self.loop.call_soon(accepted, context=listener[0].context())
        return near, near.protocol


class _End(asyncio.Transport):
    """One end of a connection."""

    protocol: asyncio.Protocol
    peer: _End

    def __init__(self, ports: Ports, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self._ports = ports
        self._closing = False
        self._lost = False
        self._reading = True
        self._arriving: collections.deque[tuple[float, bytes]] = collections.deque()
        """When what the other end sent is here; no bytes: its end."""
        self._pumping = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (_HOST, 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All is taken at once."""

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._pump_soon(0.0)

    def write(self, data: Any) -> None:
        if not self._closing and data:
            self.peer.arrive(bytes(data))

    def write_eof(self) -> None:
        self.peer.arrive(b"")

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.peer.arrive(b"")
            self._end_soon(None)

    def abort(self) -> None:
        if not self._lost:
            self._closing = True
            loop, peer = self._ports.loop, self.peer
            loop.call_later(0.002, peer.lose, ConnectionResetError(), context=peer.context())
            self._end_soon(None)

    def context(self) -> Any:
        return self.machine.context()

    def lose(self, error: Exception) -> None:
        """The other end is gone."""
        if not self._lost and not self.machine.dead:
            self._closing = True
            self._end_soon(error)

    def arrive(self, data: bytes) -> None:
        """Bytes are sent here."""
        delay_s = self._ports.delay_s(self.peer.machine, self.machine)
        due_s = self._ports.loop.time() + (_RESENT_S if delay_s is None else delay_s)
        if self._arriving:
            due_s = max(due_s, self._arriving[-1][0])
        self._arriving.append((due_s, data))
        self._pump_soon(due_s - self._ports.loop.time())

    def _pump_soon(self, after_s: float) -> None:
        if not self._pumping and self._arriving and self._reading:
            self._pumping = True
            self._ports.loop.call_later(max(0.0, after_s), self._pump, context=self.context())

    def _pump(self) -> None:
        self._pumping = False
        loop = self._ports.loop
        while self._arriving and self._reading and not self._lost:
            due_s, data = self._arriving[0]
            if due_s > loop.time():
                self._pump_soon(due_s - loop.time())
                return
            if self._ports.delay_s(self.peer.machine, self.machine) is None:
                self._pump_soon(_RESENT_S)  # The link is cut: it is sent again, and again.
                return
            self._arriving.popleft()
            if data:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()

    def _end_soon(self, error: Exception | None) -> None:
        self._ports.loop.call_soon(self._end, error, context=self.context())

    def _end(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._arriving.clear()
            if hasattr(self, "protocol"):
                self.protocol.connection_lost(error)
