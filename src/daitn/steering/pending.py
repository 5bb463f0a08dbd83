"""The pending entries of a forwarder: its record of every object that it forwards.

An entry holds the packet itself until its answer has gone by, so that the forwarder can send the
object to another next hop if one fails (custody, as in delay-tolerant networks: RFC 9171 and its
predecessor). After that it holds the answer for a while, for late copies.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from daitn.objects.decisions import Decision
from daitn.steering.ranking import NextHopChoice, Outline
from daitn.steering.timers import Timers
from daitn.steering.wire.packet import Packet

__all__ = ["Key", "PendingEntry", "PendingTable", "Phase", "RoutingStep"]

Key = tuple[bytes, int]
"""An object's id and branch."""
MOST_COPIES = 7
"""Limit on branches of one object that are tracked separately: the maximum size of an ensemble. A
stranger's packet may carry any number."""


class Phase(enum.Enum):
    """The state of an object at this forwarder."""

    UNDER_WAY = "under way"
    """It was forwarded, or is being served here."""
    HELD = "held"
    """It has no next hop at the moment."""
    RESTING = "resting"
    """It was refused and awaits a retry, at its source."""
    ANSWERED = "answered"
    REFUSED = "refused"


class RoutingStep(msgspec.Struct, frozen=True, gc=False):
    """One search for a next hop."""

    at_s: float
    choice: NextHopChoice | None
    known: Outline | Decision
    """Basis of the choice: the full decision for traced objects and for those without a next hop,
    else its outline."""


# A forwarder holds very many of these: they contain nothing that garbage collection must visit.


class PendingEntry(msgspec.Struct, gc=False):
    """One object at this forwarder."""

    packet: Packet
    """The packet to pass on: the packet as received, plus the sites that were tried from here; then
    its answer or refusal."""
    first: Packet
    """The packet as received."""
    upstreams: tuple[str, ...]
    """Neighbours that await its answer; `LOCAL` if it set out here."""
    since_s: float
    """When it arrived, as last sent by its source."""
    phase: Phase = Phase.HELD
    via: str = ""
    origin: str = ""
    expected_s: float = 0.0
    failed_here: bool = False
    """Whether it was delivered here and failed."""
    until_s: float = 0.0
    """When its timer fires: at its deadline, for a retry, or to forget it."""
    steps: tuple[RoutingStep, ...] = ()
    weight: int = 0
    """Its size in bytes as last counted by `PendingTable`."""


class PendingTable:
    """The pending entries of a forwarder, within bounds.

    Only methods of this class change what an entry holds, so that all of it is counted.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._pending: dict[Key, PendingEntry] = {}
        self.get: Final = self._pending.get
        """The entry of an object, if there is one."""
        self.copies: dict[bytes, set[int]] = {}
        """Branches other than 0, for objects known in several copies."""
        self._bytes = 0
        # A plain dict scans all places freed at its front before it finds its first key.
        self._settled: OrderedDict[Key, None] = OrderedDict()
        """Objects that were answered or refused, oldest first."""
        self._timers = Timers(self._is_current)
        self._through: defaultdict[str, dict[Key, None]] = defaultdict(dict)
        """Pending objects, by next hop."""

    def of(self, object_id: bytes) -> Iterator[tuple[int, PendingEntry]]:
        """All branches of an object, each with its entry."""
        for (known_id, branch), entry in self._pending.items():
            if known_id == object_id:
                yield branch, entry

    def siblings(self, key: Key) -> Iterator[PendingEntry]:
        """The entries of an object's other copies."""
        object_id, branch = key
        for other in (0, *self.copies.get(object_id, ())):
            entry = self._pending.get((object_id, other))
            if entry is not None and other != branch:
                yield entry

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def held_bytes(self) -> int:
        """Estimated memory of all entries."""
        return self._bytes

    def make_room(self, packet: Packet) -> bool:
        """Forget replies, oldest first, until one more object fits. False if it does not."""
        size = _ENTRY_BYTES + _STEP_BYTES + _size(packet)
        while len(self._pending) >= self._most or self._bytes + size > self._most_bytes:
            if not self._settled:
                return False
            self.forget(next(iter(self._settled)))
        return True

    def put(self, key: Key, entry: PendingEntry) -> None:
        """Add an entry."""
        self._pending[key] = entry
        object_id, branch = key
        if 0 < branch < MOST_COPIES:
            self.copies.setdefault(object_id, set()).add(branch)
        self._count(entry)

    def replace(self, entry: PendingEntry, packet: Packet) -> None:
        """Replace both the packet as received and the one to pass on."""
        entry.packet = entry.first = packet
        self._count(entry)

    def pass_on(self, entry: PendingEntry, packet: Packet) -> None:
        """Replace the packet to pass on."""
        entry.packet = packet
        self._count(entry)

    def add_step(self, entry: PendingEntry, step: RoutingStep, outline: Outline) -> None:
        """Record a search for a next hop, with only the outline if the decision does not fit."""
        weight = _step_weight(step)
        if self._bytes + weight > self._most_bytes:
            step = RoutingStep(step.at_s, step.choice, outline)
            weight = _step_weight(step)
        entry.steps += (step,)
        entry.weight += weight
        self._bytes += weight

    def _count(self, entry: PendingEntry) -> None:
        weight = _weight(entry)
        self._bytes += weight - entry.weight
        entry.weight = weight

    def settle(self, key: Key, entry: PendingEntry, reply: Packet, until_s: float) -> None:
        """Store the reply until then, if there is room. Older replies make room for it."""
        self.stopped(key, entry)
        self.replace(entry, reply)
        self._settled[key] = None
        self.wake(key, entry, until_s)
        while self._bytes > self._most_bytes and self._settled:
            self.forget(next(iter(self._settled)))

    def forget(self, key: Key) -> None:
        """Remove an entry."""
        entry = self._pending.pop(key)
        self._settled.pop(key, None)
        self._bytes -= entry.weight
        entry.weight = 0
        self.stopped(key, entry)
        object_id, branch = key
        if branch and (copies := self.copies.get(object_id)) is not None:
            copies.discard(branch)
            if not copies:
                del self.copies[object_id]

    def wake(self, key: Key, entry: PendingEntry, at_s: float) -> None:
        """Set the entry's timer, replacing the previous one."""
        entry.until_s = at_s
        self._timers.put(at_s, key)

    def _is_current(self, at_s: float, key: Key) -> bool:
        """Whether a timer is the latest one of its object."""
        entry = self._pending.get(key)
        return entry is not None and entry.until_s == at_s

    def next_s(self) -> float:
        """When the next timer may fire."""
        return self._timers.next_s()

    def due(self, now_s: float) -> Iterator[tuple[Key, PendingEntry]]:
        """The entries whose timers have fired, each once."""
        for key in self._timers.due(now_s):
            yield key, self._pending[key]

    def sent(self, key: Key, entry: PendingEntry, until_s: float) -> None:
        """The object was sent through `entry.via`; its answer is due by `until_s`."""
        self._through[entry.via][key] = None
        self.wake(key, entry, until_s)

    def stopped(self, key: Key, entry: PendingEntry) -> None:
        """The object is no longer pending through `entry.via`."""
        through = self._through.get(entry.via)
        if through is not None:
            through.pop(key, None)

    def through(self, via: str) -> list[Key]:
        """The objects pending through a neighbour, oldest first."""
        return [*self._through.get(via, ())]


_ENTRY_BYTES = 1024
"""An entry without its packets' content: itself, its key, and its places in tables. Measured: 900
for an object that came from one neighbour."""
_STEP_BYTES = 512
"""A step with its outline."""
_ROW_BYTES = 512
"""A candidate in a decision. Objects of one class may share decisions; that is not counted."""


def _weight(entry: PendingEntry) -> int:
    """Estimated memory of an entry."""
    packet, first = entry.packet, entry.first
    weight = _ENTRY_BYTES + _size(packet)
    if first is not packet:
        # Parts shared by both packets exist once.
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
