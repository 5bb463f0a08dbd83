"""The in-memory fabric with weather: links are slow, lossy, cut or half open, messages come late,
twice, in another order or damaged, and whoever was killed is missed only after a while."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from daitn.tools.fabric.memory import MemoryFabric, MemoryNetwork
from tests.faults.virtual import Machine, VirtualLoop

__all__ = ["FaultyNetwork", "Weather"]

_LEASE_S = 10.0
"""As long as Zenoh waits for a sign of life before it says that a process is gone."""


@dataclass
class Weather:
    """Of one link, in one direction."""

    latency_s: float = 0.003
    spread: float = 0.5
    """Of the latency, at random; more than 1 lets messages overtake others often."""
    loss: float = 0.0
    doubled: float = 0.0
    damaged: float = 0.0


@dataclass
class Seen:
    """What the run's messages were."""

    messages: int = 0
    lost: int = 0
    doubled: int = 0
    damaged: int = 0
    leaks: list[str] = field(default_factory=list)
    """Keys or answers whose bytes hold a record."""
    trace: Any = field(default_factory=hashlib.blake2b)
    """Of all deliveries: two runs of one seed have the same."""


class FaultyNetwork(MemoryNetwork):
    """See the module."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, secret: bytes) -> None:
        """`secret`: no message may hold these bytes."""
        super().__init__()
        self._loop = loop
        self._rng = rng
        self._secret = secret
        self._hidden: Collection[bytes] = ()
        self._machines: dict[MemoryFabric, Machine] = {}
        self._weather: dict[tuple[str, str], Weather] = {}
        self._fair = Weather()
        self._gone = 0
        self._missed: set[frozenset[str]] = set()
        """Links of processes that stand still."""
        self._halted_s: dict[str, float] = {}
        """Since when processes stand still."""
        self.seen = Seen()

    def connect(self, machine: Machine) -> MemoryFabric:
        """A machine's session. One that its last life left, which others still believe in, goes on
        under another name."""
        session = self.open(machine.name)
        self._machines[session] = machine
        return session

    def hide(self, hidden: Collection[bytes]) -> None:
        """No message may hold any of these, either, of which there may be more by and by."""
        self._hidden = hidden

    def weather(self, source: str, target: str, now: Weather | None) -> None:
        """Set a link's weather in one direction; none: it is fair."""
        if now is None:
            self._weather.pop((source, target), None)
        else:
            self._weather[source, target] = now

    def vanish(self, name: str, noticed_after_s: float) -> None:
        """A process was killed: nothing comes of it any more, and others notice later."""
        self.resume(name)
        session = self._sessions.pop(name, None)
        if session is None:
            return
        self._gone += 1
        session.name = f"{name}~{self._gone}"
        self._sessions[session.name] = session
        self._loop.call_later(noticed_after_s, self._notice, session)

    def halt(self, name: str) -> None:
        """A process stands still: for the lease others believe that it is there."""
        session = self._sessions.get(name)
        if session is not None:
            self._halted_s[name] = since_s = self._loop.time()
            self._loop.call_later(_LEASE_S, self._miss, session, since_s)

    def resume(self, name: str) -> None:
        """It goes on, and shows its tokens again."""
        self._halted_s.pop(name, None)
        for other in tuple(self._sessions):
            if frozenset((name, other)) in self._missed:
                self._missed.discard(frozenset((name, other)))
                self.mend(name, other)

    def _miss(self, session: MemoryFabric, since_s: float) -> None:
        if self._halted_s.get(session.name) != since_s:
            return
        for other in tuple(self._sessions):
            link = frozenset((session.name, other))
            if other != session.name and link not in self._cuts:
                self._missed.add(link)
                self.cut(session.name, other)

    def _notice(self, session: MemoryFabric) -> None:
        self._leave(session)
        for token in tuple(session.tokens):
            session.tokens.remove(token)
            self._hide(session, token.key)

    def _carry(
        self, source: MemoryFabric, target: MemoryFabric, arrive: Callable[[], object]
    ) -> None:
        sender, receiver = self._machines[source], self._machines[target]
        if sender.dead or receiver.dead:
            return
        now = self._weather.get((sender.name, receiver.name), self._fair)
        rng, seen = self._rng, self.seen
        seen.messages += 1
        assert isinstance(arrive, partial)
        payload = _payload(arrive)
        if self._secret in payload and sender is not receiver:
            seen.leaks.append(f"{sender.name} to {receiver.name}: {payload[:120]!r}")
        if any(hidden in payload for hidden in self._hidden) and sender is not receiver:
            seen.leaks.append(f"an update, from {sender.name} to {receiver.name}")
        if rng.random() < now.loss:
            seen.lost += 1
            return
        if payload and rng.random() < now.damaged:
            seen.damaged += 1
            arrive = _damaged(arrive, rng)
        publication = arrive.func.__name__ == "put"
        self._send(source, target, arrive, self._latency_s(now), in_order=publication)
        answer = arrive.func.__name__ == "settle"
        if not answer and rng.random() < now.doubled:
            seen.doubled += 1
            self._send(source, target, arrive, self._latency_s(now) * 20, in_order=publication)

    def _latency_s(self, now: Weather) -> float:
        return now.latency_s * (1.0 + now.spread * self._rng.random())

    def _send(
        self,
        source: MemoryFabric,
        target: MemoryFabric,
        arrive: Callable[[], object],
        latency_s: float,
        *,
        in_order: bool,
    ) -> None:
        receiver = self._machines[target]
        due_s = self._loop.time() + latency_s
        if in_order:
            way = (source.name, target.name)
            due_s = max(due_s, self._last_due_s.get(way, 0.0) + 1e-6)
            self._last_due_s[way] = due_s

        def land() -> None:
            if self._linked(source, target):
                self.seen.trace.update(f"{due_s:.6f} {source.name} {target.name};".encode())
                arrive()

        self._loop.call_at(due_s, land, context=receiver.context())


def _payload(arrive: partial[object]) -> bytes:
    """What a message says."""
    for argument in reversed(arrive.args):
        if isinstance(argument, bytes):
            return argument
        if isinstance(argument, tuple) and isinstance(argument[-1], bytes):
            return argument[-1]
    return b""


def _damaged(arrive: partial[object], rng: random.Random) -> partial[object]:
    """The same message with a bit turned over."""

    def turned(argument: object) -> object:
        if isinstance(argument, tuple):
            return tuple(map(turned, argument))
        if not isinstance(argument, bytes) or not argument:
            return argument
        data = bytearray(argument)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)

    return partial(arrive.func, *map(turned, arrive.args))
