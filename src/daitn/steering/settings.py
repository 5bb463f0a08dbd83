"""How long a forwarder waits for objects, how often it sends them, and how much it stores."""

from __future__ import annotations

import msgspec

from daitn.steering.next_hops import LOCAL
from daitn.steering.pending import PendingEntry
from daitn.steering.wire.packet import Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal

__all__ = [
    "CLOCKS_DIFFER_S",
    "DIRECT_HOPS",
    "ForwarderSettings",
    "end_s",
    "is_transient",
    "overdue_s",
]

CLOCKS_DIFFER_S = 120.0
"""By another site's clock, a deadline has passed this much later: as for signatures."""
DIRECT_HOPS = 16
"""A packet with no more hops left than this takes no detours: where links are much shorter than
waits, it could wander from site to site until it has none."""
_TRANSIENT = frozenset((Reason.NO_WAY, Reason.LOOP, Reason.FULL, Reason.RATE))
_QUERY = PacketKind.QUERY


class ForwarderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts, retries and bounds of a forwarder."""

    hold_s: float = 0.3
    """How long an object without a next hop waits for one."""
    attempts: int = 3
    """Maximum number of times that its source sends an object."""
    overdue_s: float = 2.0
    """An object is sent again this long after four times the expected time."""
    pending_s: float = 600.0
    """How long a forwarder waits for the answer to an object without a deadline."""
    deadline_s: float = 7200.0
    """Maximum time that it waits if the object has a deadline."""
    kept_s: float = 30.0
    """How long a reply is stored for late copies of its object."""
    rest_s: float = 0.2
    """The wait before the first retry of a refused object; it doubles with each further one."""
    most_objects: int = 100_000
    most_bytes: int = 1 << 28
    """Memory for all objects."""
    most_upstreams: int = 4
    owner_per_s: float = 1000.0
    """Objects of one owner from one neighbour per second, sustained."""
    owner_burst: float = 2000.0
    owners_per_neighbour: float = 16.0
    """How many owners' rates one neighbour may use up."""


def end_s(entry: PendingEntry, settings: ForwarderSettings) -> float:
    """The time until which an answer is awaited.

    A deadline is of the source's clock. Elsewhere the object is awaited for as long as it had when
    it set out, by that clock: its source ends it.
    """
    packet = entry.packet
    if not packet.deadline_ms:
        return entry.since_s + settings.pending_s
    if LOCAL in entry.upstreams:
        return min(entry.since_s + settings.deadline_s, packet.deadline_ms / 1000)
    return entry.since_s + min(settings.deadline_s, packet.budget_s(entry.since_s))


def overdue_s(entry: PendingEntry, settings: ForwarderSettings, now_s: float) -> float:
    """When an object that is sent now becomes overdue. Models never do: their transfer takes as
    long as their size requires."""
    last_s = end_s(entry, settings)
    packet = entry.packet
    if packet.kind is not _QUERY or LOCAL not in entry.upstreams:
        return last_s
    wait_s = settings.overdue_s + 4.0 * entry.expected_s
    wait_s *= 2.0 ** min(packet.attempt, 10)
    return min(last_s, now_s + wait_s)


def is_transient(packet: Packet, refusal: Refusal) -> bool:
    """Whether a retry a moment later may succeed.

    A packet that ran out of hops counts if it had more than the route to a capable site is likely
    to need.
    """
    astray = refusal.reason is Reason.HOPS and packet.hop_limit > DIRECT_HOPS
    return astray or refusal.reason in _TRANSIENT
