"""Replies to an object: its answer, or a refusal with the reason."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.steering.wire.intent import Amount, Capability, PacketIntent, encode_intent
from daitn.steering.wire.malformed import decoded
from daitn.steering.wire.packet import Flag, Packet, PacketKind

__all__ = ["Reason", "Refusal", "answer_to", "read_refusal", "refusal_to"]

MOST_REFUSAL_BYTES = 4096
_REPLY_HOPS = 64
_PLAIN = Flag(0)


class Reason(enum.IntEnum):
    """Why an object cannot go on. After `DENIED`, `HOPS`, `DEADLINE` and `MALFORMED`, a forwarder
    tries no other next hop."""

    NO_WAY = 1
    """Nothing reachable from there meets its intent."""
    LOOP = 2
    """It is pending at that site, or has been there before."""
    FULL = 3
    """Too many objects are pending there, or its queue of queries is full."""
    RATE = 4
    """Its owner sends more than is admitted there."""
    FAILED = 5
    """It was delivered, and serving it failed."""
    DENIED = 6
    """It was delivered, and the receiver does not accept it."""
    HOPS = 7
    """It had no hops left."""
    DEADLINE = 8
    """It came after its deadline, or was not answered before it."""
    MALFORMED = 9
    """Its intent or trace cannot be read."""
    UNSUITED = 10
    """It was delivered but cannot be served there, only elsewhere: for a query, it is too long, or
    needs a feature that the deployment lacks."""
    MISCONFIGURED = 11
    """It was delivered, but the site's operator must fix it first."""


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a refusal: a MessagePack array of these fields, in this order."""

    reason: Reason
    """See below."""
    detail: Annotated[str, msgspec.Meta(max_length=500)] = ""
    """A sentence for people."""
    retry_after_s: Amount = 0.0
    """0 means unknown."""


_DECODER = msgspec.msgpack.Decoder(Refusal)
_ENCODER = msgspec.msgpack.Encoder()


def read_refusal(packet: Packet) -> Refusal:
    """Raises `Corrupt` naming the field."""
    return decoded(packet.payload, _DECODER, "refusal", MOST_REFUSAL_BYTES)


def answer_to(packet: Packet, payload: bytes, flags: Flag = _PLAIN) -> Packet:
    """The answer to an object. It returns along the object's path, or else is steered home. Raises
    `Corrupt` if the object has no source."""
    return _reply(packet, PacketKind.ANSWER, payload, flags)


def refusal_to(packet: Packet, refusal: Refusal) -> Packet:
    """The refusal of an object. Its trace names the sites to skip."""
    reply = _reply(packet, PacketKind.REFUSAL, _ENCODER.encode(refusal), _PLAIN)
    return msgspec.structs.replace(reply, trace=packet.trace)


def _reply(packet: Packet, kind: PacketKind, payload: bytes, flags: Flag) -> Packet:
    source = packet.source()
    home = encode_intent(PacketIntent(Capability.HOME, source, trust=0)) if source else b""
    return Packet(
        kind,
        packet.object_id,
        home,
        payload,
        flags,
        _REPLY_HOPS,
        packet.priority,
        packet.deadline_ms,
        packet.branch,
        packet.attempt,
    )
