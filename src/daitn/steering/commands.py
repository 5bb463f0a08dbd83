"""What a forwarder asks its shell to do."""

from __future__ import annotations

import enum

import msgspec

from daitn.steering.wire.offers import Summary
from daitn.steering.wire.packet import Packet

__all__ = ["Advertise", "Command", "Deliver", "Drop", "DropCause", "Return", "Send"]


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a packet to a neighbour."""

    neighbour: str
    packet: Packet


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Serve the object here as its intent asks. Its answer or refusal returns to the forwarder,
    from `LOCAL`."""

    packet: Packet


class Return(msgspec.Struct, frozen=True, gc=False):
    """Hand over the answer or refusal of an object that set out here. There is exactly one."""

    packet: Packet
    taken_s: float
    """Seconds since the object set out; 0 if the forwarder has restarted since."""


class DropCause(enum.StrEnum):
    """Why a packet is dropped, in one word."""

    MALFORMED = "malformed"
    """It cannot be read, or carried out."""
    EXPIRED = "expired"
    """It was not answered in time."""
    DUPLICATE = "duplicate"
    """It arrived before, or was answered before."""
    UNWANTED = "unwanted"
    """It is no longer awaited."""
    NO_ROUTE = "no_route"
    """An answer has no route home."""


class Drop(msgspec.Struct, frozen=True, gc=False):
    """A packet was dropped: it is no longer awaited, or was answered before."""

    packet: Packet
    cause: DropCause
    reason: str
    """The cause in a sentence."""


class Advertise(msgspec.Struct, frozen=True, gc=False):
    """Send a capability summary to a neighbour."""

    neighbour: str
    summary: Summary


Command = Send | Deliver | Return | Drop | Advertise
