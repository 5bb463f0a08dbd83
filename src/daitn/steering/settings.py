"""How long a forwarder waits for objects, how often it sends them, and how much it keeps."""

from __future__ import annotations

import msgspec

from daitn.steering.next_hops import LOCAL
from daitn.steering.pending import PendingEntry
from daitn.steering.wire.packet import Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal

__all__ = ["DIRECT_HOPS", "ForwarderSettings", "end_s", "overdue_s", "passes"]

DIRECT_HOPS = 16
"""A packet that has no more hops left is led round no congestion any more: where links are much
shorter than waits are long, it could go from site to site until it has none."""
_PASSING = frozenset((Reason.NO_WAY, Reason.LOOP, Reason.FULL, Reason.RATE))
_QUERY = PacketKind.QUERY


class ForwarderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a forwarder is, and how much it keeps."""

    hold_s: float = 0.3
    """How long an object without a way waits for one."""
    attempts: int = 3
    """How often an object is sent where it sets out, at most."""
    overdue_s: float = 2.0
    """How long after four times what was expected an object is sent again."""
    pending_s: float = 600.0
    """How long an object without a deadline is waited for."""
    deadline_s: float = 7200.0
    """How long one with a deadline is waited for at most."""
    kept_s: float = 30.0
    """How long an answer is kept for copies that come late."""
    traced_s: float = 600.0
    """Likewise, where the object is to be traced."""
    rest_s: float = 0.2
    """How long an object that was refused rests before it is sent again, the first time."""
    most_objects: int = 100_000
    most_bytes: int = 1 << 28
    """Of all that is kept of objects."""
    most_upstreams: int = 4
    owner_per_s: float = 1000.0
    """Objects of one owner from one neighbour, in the long run."""
    owner_burst: float = 2000.0
    owners_per_neighbour: float = 16.0
    """How many owners' rate one neighbour may use up."""


def end_s(entry: PendingEntry, settings: ForwarderSettings) -> float:
    """Until when an object is waited for."""
    deadline_ms = entry.packet.deadline_ms
    if not deadline_ms:
        return entry.since_s + settings.pending_s
    return min(entry.since_s + settings.deadline_s, deadline_ms / 1000)


def overdue_s(entry: PendingEntry, settings: ForwarderSettings, now_s: float) -> float:
    """When an object that leaves now is overdue. A model on its way takes as long as its bytes
    take."""
    last_s = end_s(entry, settings)
    packet = entry.packet
    if packet.kind is not _QUERY or LOCAL not in entry.upstreams:
        return last_s
    wait_s = settings.overdue_s + 4.0 * entry.expected_s
    wait_s *= 2.0 ** min(packet.attempt, 10)
    return min(last_s, now_s + wait_s)


def passes(packet: Packet, refusal: Refusal) -> bool:
    """Whether what a refusal says may be otherwise a moment later. A packet may have used up more
    hops than the way to who can serve it is likely to need."""
    astray = refusal.reason is Reason.HOPS and packet.hop_limit > DIRECT_HOPS
    return astray or refusal.reason in _PASSING
