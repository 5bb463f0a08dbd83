"""What keeps a packet as its sender made it, and its payload from those it is not for."""

from __future__ import annotations

import base64
import struct

import msgspec

from daitn.identity.keys import SigningKey, check_signature
from daitn.identity.sealing import ReceiverKey, open_sealed, seal
from daitn.objects.errors import Corrupt
from daitn.steering.wire.packet import Flag, Packet

__all__ = ["check_packet", "open_payload", "seal_payload", "sealing_context", "sign_packet"]

_PUBLIC_BYTES = 32
_CONTEXT = struct.Struct("!16sHB")


def sign_packet(packet: Packet, key: SigningKey) -> Packet:
    """The packet with its sender's key and signature. Forwarders may pass it on as it is."""
    signature = base64.b64decode(key.sign(packet.signed_bytes()))
    return msgspec.structs.replace(
        packet,
        flags=packet.flags | Flag.SIGNED,
        seal=base64.b64decode(key.public) + signature,
    )


def check_packet(packet: Packet) -> str:
    """The public key, base64, of who signed the packet. Raises `Corrupt` where it is not signed.

    Whether that key may do what the packet asks is for the caller to know.
    """
    if Flag.SIGNED not in packet.flags:
        raise Corrupt("the packet is not signed", field="seal", fix="have its sender sign it")
    public = base64.b64encode(packet.seal[:_PUBLIC_BYTES]).decode()
    signature = base64.b64encode(packet.seal[_PUBLIC_BYTES:]).decode()
    try:
        check_signature(public, signature, packet.signed_bytes())
    except Corrupt as error:
        raise Corrupt(error.problem, field="seal", fix=error.fix) from None
    return public


def sealing_context(packet: Packet) -> bytes:
    """What a sealed payload is bound to: it opens in packets of this object and kind only."""
    return _CONTEXT.pack(packet.object_id, packet.branch, packet.kind)


def seal_payload(packet: Packet, class_public: str) -> Packet:
    """The packet with its payload sealed to a class of receivers. Seal first, then sign."""
    return msgspec.structs.replace(
        packet,
        flags=packet.flags | Flag.SEALED,
        payload=seal(packet.payload, class_public, sealing_context(packet)),
    )


def open_payload(packet: Packet, key: ReceiverKey) -> bytes:
    """What the packet's payload held. Raises `Refused` where it is for others, `Corrupt`."""
    if Flag.SEALED not in packet.flags or Flag.DIGEST in packet.flags:
        raise Corrupt("the packet holds no sealed payload", field="flags", fix="read it as it is")
    return open_sealed(packet.payload, key, sealing_context(packet))
