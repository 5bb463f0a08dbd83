"""Links between forwarders in virtual time, under the same weather as all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from daitn.node.forwarder import role as role_module
from daitn.node.forwarder.runtime import _PACKET
from daitn.objects.identifiers import SiteId
from daitn.tools.adjacency.protocol import LinkStats, Neighbours
from tests.faults.sockets import Ports
from tests.faults.virtual import MACHINE, Machine

__all__ = ["Wires"]

_COST_S = 0.003
_AGAIN_S = 2.0
"""A packet that comes twice does so within this time."""
_NOTICED_S = 1.0
"""Links that rise or fall are noticed within this time."""


class Wires:
    """All links. `pairs` are those that there should be."""

    def __init__(self, ports: Ports, pairs: tuple[tuple[str, str], ...]) -> None:
        self.ports = ports
        self._pairs = pairs
        self._ends: dict[str, _Links] = {}
        self._lossy: set[frozenset[str]] = set()
        """Links that lost a message: they go down, however soon they are whole again."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have forwarders link here."""
        with mock.patch.object(role_module, "open_adjacency", self._open):
            yield

    async def look(self) -> None:
        """Let ends notice what has become of their links, for ever."""
        while True:
            await asyncio.sleep(_NOTICED_S)
            for one, other in self._pairs:
                ends = [self._ends.get(name) for name in (one, other)]
                whole = self._whole(ends) and frozenset((one, other)) not in self._lossy
                for end, peer, far in zip(ends, (other, one), reversed(ends), strict=True):
                    if end is not None and not end.machine.dead:
                        call, context = end.notice, end.machine.context()
                        self.ports.loop.call_soon(
                            call, peer, far if whole else None, context=context
                        )
            self._lossy.clear()

    def _whole(self, ends: Sequence[_Links | None]) -> bool:
        machines = [end.machine for end in ends if end is not None and not end.closed]
        if len(machines) < 2 or any(machine.dead or machine.stopped for machine in machines):
            return False
        ways = (machines, machines[::-1])
        return all(self.ports.delay_s(*way) is not None for way in ways)

    async def _open(self, settings: Any, neighbours: Neighbours, identity: Any) -> _Links:
        machine = MACHINE.get()
        assert machine is not None
        end = self._ends[machine.name] = _Links(self, machine, neighbours)
        return end

    def carry(self, source: _Links, target: str, message: bytes) -> None:
        """Deliver a message, in order, while the link is up."""
        end = self._ends.get(target)
        delay_s = None if end is None else self.ports.delay_s(source.machine, end.machine)
        if end is None or delay_s is None:
            self._lossy.add(frozenset((source.machine.name, target)))
            return
        loop = self.ports.loop
        due_s = max(loop.time() + delay_s, source.last_due_s.get(target, 0.0) + 1e-6)
        source.last_due_s[target] = due_s
        arrive = source.machine.name, message
        loop.call_at(due_s, end.arrive, *arrive, context=end.machine.context())
        # Links keep order and repeat nothing; forwarders send a packet again that is late.
        if message.startswith(_PACKET) and self.ports.doubles(source.machine, end.machine):
            late_s = due_s + _AGAIN_S * self.ports.rng.random()
            loop.call_at(late_s, end.arrive, *arrive, context=end.machine.context())


class _Links:
    """One site's; see `Adjacency`."""

    endpoints: tuple[str, ...] = ()

    def __init__(self, wires: Wires, machine: Machine, neighbours: Neighbours) -> None:
        self.machine = machine
        self.closed = False
        self.last_due_s: dict[str, float] = {}
        self._wires = wires
        self._neighbours = neighbours
        self._up: dict[str, _Links] = {}
        """The other ends, by name. One that has restarted is down before it is up again."""
        self._stats: dict[SiteId, LinkStats] = {}

    def notice(self, peer: str, end: _Links | None) -> None:
        """`end`: what it is linked to now."""
        if self.closed or end is self._up.get(peer):
            return
        if self._up.pop(peer, None) is not None:
            self._neighbours.down(SiteId(peer))
        if end is not None:
            self._up[peer] = end
            self._neighbours.up(SiteId(peer), _COST_S)

    def send(self, neighbour: SiteId, message: bytes) -> bool:
        if self.closed or neighbour not in self._up:
            return False
        self._wires.carry(self, neighbour, message)
        return True

    def arrive(self, peer: str, message: bytes) -> None:
        if not self.closed and peer in self._up:
            self._neighbours.frames(SiteId(peer), [message])

    def stats(self) -> dict[SiteId, LinkStats]:
        return {
            SiteId(peer): LinkStats(True, _COST_S, 0, 0, 0, 0, 0, 0) for peer in sorted(self._up)
        }

    async def close(self) -> None:
        self.closed = True
