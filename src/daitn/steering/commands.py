"""What a forwarder asks its shell to do."""

from __future__ import annotations

import msgspec

from daitn.steering.wire.offers import Summary
from daitn.steering.wire.packet import Packet

__all__ = ["Advertise", "Command", "Deliver", "Drop", "Return", "Send"]


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a packet to a neighbour."""

    neighbour: str
    packet: Packet


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Do for the object here what its intent asks. Its answer or refusal returns to the forwarder,
    from `LOCAL`."""

    packet: Packet


class Return(msgspec.Struct, frozen=True, gc=False):
    """Hand over the answer or refusal of an object that set out here. There is exactly one."""

    packet: Packet
    taken_s: float
    """Since the object set out; 0 if the forwarder has restarted since."""


class Drop(msgspec.Struct, frozen=True, gc=False):
    """A packet was dropped: nobody waits for it, or it was answered before."""

    packet: Packet
    reason: str


class Advertise(msgspec.Struct, frozen=True, gc=False):
    """Send a capability summary to a neighbour."""

    neighbour: str
    summary: Summary


Command = Send | Deliver | Return | Drop | Advertise
