"""What a forwarder asks of its shell."""

from __future__ import annotations

import msgspec

from daitn.steering.wire.packet import Packet
from daitn.steering.wire.summaries import Summary

__all__ = ["Command", "Deliver", "Drop", "Return", "Send", "Tell"]


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a packet to a neighbour."""

    neighbour: str
    packet: Packet


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Do here what the object wants; its answer or refusal comes back to the forwarder, from
    `LOCAL`."""

    packet: Packet


class Return(msgspec.Struct, frozen=True, gc=False):
    """The answer or the refusal of an object that set out here. There is exactly one."""

    packet: Packet
    taken_s: float
    """Since it set out; 0 where that was in an earlier life of this forwarder."""


class Drop(msgspec.Struct, frozen=True, gc=False):
    """A packet is dropped; nobody waits for it, or it was answered before."""

    packet: Packet
    reason: str


class Tell(msgspec.Struct, frozen=True, gc=False):
    """Send a capability summary to a neighbour."""

    neighbour: str
    summary: Summary


Command = Send | Deliver | Return | Drop | Tell
