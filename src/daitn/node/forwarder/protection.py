"""Signs and checks packets; seals and opens payloads."""

from __future__ import annotations

import base64
import struct

import msgspec

from daitn.identity.keys import SigningKey, check_raw_signature
from daitn.identity.sealing import ReceiverKey, open_sealed, seal
from daitn.objects.errors import Corrupt
from daitn.steering.wire.packet import Flag, Packet

__all__ = ["check_packet", "open_payload", "seal_payload", "sealing_context", "sign_packet"]

_PUBLIC_BYTES = 32
_CONTEXT = struct.Struct("!16sHB")


def sign_packet(packet: Packet, key: SigningKey) -> Packet:
    """The packet with its sender's key and signature; forwarders leave both unchanged."""
    return msgspec.structs.replace(
        packet,
        flags=packet.flags | Flag.SIGNED,
        seal=key.public_raw + key.sign_raw(packet.signed_bytes()),
    )


def check_packet(packet: Packet) -> str:
    """The signer's public key in base64. Raises `Corrupt` if the packet has no valid signature.

    The caller decides what that key is allowed to do.
    """
    if Flag.SIGNED not in packet.flags:
        raise Corrupt("the packet is not signed", field="seal", fix="have its sender sign it")
    public, signature = packet.seal[:_PUBLIC_BYTES], packet.seal[_PUBLIC_BYTES:]
    try:
        check_raw_signature(public, signature, packet.signed_bytes())
    except Corrupt as error:
        raise Corrupt(error.problem, field="seal", fix=error.fix) from None
    return base64.b64encode(public).decode()


def sealing_context(packet: Packet) -> bytes:
    """The context of a sealed payload: it opens only in packets of this object and kind."""
    return _CONTEXT.pack(packet.object_id, packet.branch, packet.kind)


def seal_payload(packet: Packet, class_public: str) -> Packet:
    """The packet with its payload sealed to a class of receivers. Seal first, then sign."""
    return msgspec.structs.replace(
        packet,
        flags=packet.flags | Flag.SEALED,
        payload=seal(packet.payload, class_public, sealing_context(packet)),
    )


def open_payload(packet: Packet, key: ReceiverKey) -> bytes:
    """The opened payload. Raises `Refused` if it is sealed to another key, and `Corrupt`."""
    if Flag.SEALED not in packet.flags or Flag.DIGEST in packet.flags:
        raise Corrupt("the packet's payload is not sealed", field="flags", fix="read it as it is")
    return open_sealed(packet.payload, key, sealing_context(packet))
