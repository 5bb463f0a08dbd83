"""Breadcrumbs: what a forwarder remembers of every object that it has passed on.

A crumb holds the packet itself until its answer has gone by, so that whatever happens to the next
hop, the object can be sent another way from here (the custody of delay-tolerant networks, RFC 9171
and its predecessor). After that it holds the answer for a while, for copies that arrive late.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from daitn.objects.decisions import Decision
from daitn.steering.ranking import NextHopChoice, Outline
from daitn.steering.timers import Timers
from daitn.steering.wire.packet import Packet

__all__ = ["Key", "PendingEntry", "PendingTable", "Phase", "RoutingStep"]

Key = tuple[bytes, int]
"""An object's id, and its branch."""
MOST_COPIES = 7
"""Of one object, that keep apart: as many as an ensemble has members at most. A stranger's packet
may say any number."""


class Phase(enum.Enum):
    """What becomes of an object here."""

    UNDER_WAY = "under way"
    """It was passed on, or is served here."""
    HELD = "held"
    """There is no way at this moment."""
    RESTING = "resting"
    """It was refused; the forwarder where it set out will try once more."""
    ANSWERED = "answered"
    REFUSED = "refused"


class RoutingStep(msgspec.Struct, frozen=True, gc=False):
    """One time that a way was looked for."""

    at_s: float
    choice: NextHopChoice | None
    known: Outline | Decision
    """What the choice rests on; all of it only of objects that are there to be traced, and where
    there was no way."""


# A forwarder keeps very many of these: only what no garbage collection has to look at.


class PendingEntry(msgspec.Struct, gc=False):
    """One object."""

    packet: Packet
    """What is passed on: as it came, and with the sites that were tried for it from here. Its
    answer or refusal, once there is one."""
    first: Packet
    """As it came."""
    upstreams: tuple[str, ...]
    """Neighbours who wait for its answer; `LOCAL` where it set out."""
    since_s: float
    phase: Phase = Phase.HELD
    via: str = ""
    origin: str = ""
    expected_s: float = 0.0
    failed_here: bool = False
    """Whether it was delivered here in vain."""
    until_s: float = 0.0
    """When something has to be done about it: its deadline, another try, forgetting it."""
    steps: tuple[RoutingStep, ...] = ()
    weight: int = 0
    """Bytes that it was counted with last, see `PendingTable`."""


class PendingTable:
    """All crumbs of a forwarder, within bounds.

    What a crumb holds changes by methods of this class alone, so that all of it is counted.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._pending: dict[Key, PendingEntry] = {}
        self.get: Final = self._pending.get
        """The crumb of an object, if there is one."""
        self.copies: dict[bytes, set[int]] = {}
        """Of objects that are known in several copies: the branches but the first."""
        self._bytes = 0
        self._settled: dict[Key, None] = {}
        """Objects that were answered or refused, the oldest first."""
        self._timers = Timers(self._stands)
        self._through: defaultdict[str, dict[Key, None]] = defaultdict(dict)
        """Objects under way, by the neighbour through which they are."""

    def of(self, object_id: bytes) -> Iterator[tuple[int, PendingEntry]]:
        """The crumbs of all branches of an object."""
        for (known_id, branch), entry in self._pending.items():
            if known_id == object_id:
                yield branch, entry

    def siblings(self, key: Key) -> Iterator[PendingEntry]:
        """The crumbs of an object's other copies."""
        object_id, branch = key
        for other in (0, *self.copies.get(object_id, ())):
            entry = self._pending.get((object_id, other))
            if entry is not None and other != branch:
                yield entry

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def held_bytes(self) -> int:
        """What all of them take up in memory, about."""
        return self._bytes

    def room(self, packet: Packet) -> bool:
        """Whether one more object can be kept. Where all is full, replies that are kept for late
        copies make room, the oldest first."""
        size = _CRUMB_BYTES + _STEP_BYTES + _size(packet)
        while len(self._pending) >= self._most or self._bytes + size > self._most_bytes:
            if not self._settled:
                return False
            self.forget(next(iter(self._settled)))
        return True

    def put(self, key: Key, entry: PendingEntry) -> None:
        """Keep a crumb."""
        self._pending[key] = entry
        object_id, branch = key
        if 0 < branch < MOST_COPIES:
            self.copies.setdefault(object_id, set()).add(branch)
        self._count(entry)

    def replace(self, entry: PendingEntry, packet: Packet) -> None:
        """Keep another packet in its place."""
        entry.packet = entry.first = packet
        self._count(entry)

    def pass_on(self, entry: PendingEntry, packet: Packet) -> None:
        """Pass this packet on, and keep what came too."""
        entry.packet = packet
        self._count(entry)

    def note(self, entry: PendingEntry, step: RoutingStep, outline: Outline) -> None:
        """One more way was looked for; the outline stands for all that was known where there is no
        room for that."""
        if self._bytes + _step_weight(step) > self._most_bytes:
            step = RoutingStep(step.at_s, step.choice, outline)
        entry.steps += (step,)
        self._count(entry)

    def _count(self, entry: PendingEntry) -> None:
        weight = _weight(entry)
        self._bytes += weight - entry.weight
        entry.weight = weight

    def settled(self, key: Key, entry: PendingEntry, reply: Packet, until_s: float) -> None:
        """All is done about it: its reply is kept until then, where there is room. Those that are
        kept make room for it, the oldest first."""
        self.left(key, entry)
        self.replace(entry, reply)
        self._settled[key] = None
        self.wake(key, entry, until_s)
        while self._bytes > self._most_bytes and self._settled:
            self.forget(next(iter(self._settled)))

    def forget(self, key: Key) -> None:
        """Keep it no longer."""
        entry = self._pending.pop(key)
        self._settled.pop(key, None)
        self._bytes -= entry.weight
        entry.weight = 0
        self.left(key, entry)
        object_id, branch = key
        if branch and (copies := self.copies.get(object_id)) is not None:
            copies.discard(branch)
            if not copies:
                del self.copies[object_id]

    def wake(self, key: Key, entry: PendingEntry, at_s: float) -> None:
        """Have something done about it then, and not before."""
        entry.until_s = at_s
        self._timers.put(at_s, key)

    def _stands(self, at_s: float, key: Key) -> bool:
        """Whether an alarm is the last one that was set for its object."""
        entry = self._pending.get(key)
        return entry is not None and entry.until_s == at_s

    def next_s(self) -> float:
        """When the next alarm may be due."""
        return self._timers.next_s()

    def due(self, now_s: float) -> Iterator[tuple[Key, PendingEntry]]:
        """The crumbs about which something has to be done now. Each is told once."""
        for key in self._timers.due(now_s):
            yield key, self._pending[key]

    def went(self, key: Key, entry: PendingEntry, until_s: float) -> None:
        """The object is under way through `entry.via`, and waited for until then."""
        self._through[entry.via][key] = None
        self.wake(key, entry, until_s)

    def left(self, key: Key, entry: PendingEntry) -> None:
        """It is not under way there any more."""
        through = self._through.get(entry.via)
        if through is not None:
            through.pop(key, None)

    def through(self, via: str) -> list[Key]:
        """The objects that are under way through a neighbour, the oldest first."""
        return [*self._through.get(via, ())]


_CRUMB_BYTES = 1024
"""Of a crumb without what its packets hold: itself, its key, and where else that is kept. Measured:
900 of an object that came from one neighbour."""
_STEP_BYTES = 512
"""With its outline."""
_ROW_BYTES = 512
"""Of a candidate in a decision. Objects of one want share those of one moment; that they do is not
counted on."""


def _weight(entry: PendingEntry) -> int:
    """What a crumb takes up in memory, about."""
    packet, first = entry.packet, entry.first
    weight = _CRUMB_BYTES + _size(packet)
    if first is not packet:
        # What a packet that is passed on has of the one that came is there once.
        for own, known in zip(_parts(first), _parts(packet), strict=True):
            if own is not known:
                weight += len(own)
    for step in entry.steps:
        weight += _step_weight(step)
    return weight


def _step_weight(step: RoutingStep) -> int:
    known = step.known
    rows = len(known.ranking) + len(known.rejections) if isinstance(known, Decision) else 0
    return _STEP_BYTES + _ROW_BYTES * rows


def _size(packet: Packet) -> int:
    return len(packet.intent) + len(packet.trace) + len(packet.payload) + len(packet.seal)


def _parts(packet: Packet) -> tuple[bytes, bytes, bytes, bytes]:
    return packet.intent, packet.trace, packet.payload, packet.seal
