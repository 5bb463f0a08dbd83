"""Envelopes: every message on a signed fabric names its sender, and is valid nowhere else.

The signature (Ed25519, RFC 8032) covers the network's name, the fabric key, what the message is
for, its time and nonce, and BLAKE3 of the payload. An answer also names the request that it answers
by its signature, so it answers no other.
"""

from __future__ import annotations

import base64
import enum
import os
from typing import Annotated, Final

import msgspec
from blake3 import blake3

from daitn.identity.keys import SigningKey, check_raw_signature
from daitn.objects.errors import Corrupt
from daitn.objects.wire import canonical, decode

__all__ = ["Envelope", "Purpose", "check_envelope", "enclose", "read_envelope"]

_VERSION: Final = 1
_DOMAIN: Final = b"daitn message 1\0"
"""Domain separation of these signatures."""
_NONCE: Final = 12


class Purpose(enum.IntEnum):
    """Purpose of a message."""

    REQUEST = 1
    ANSWER = 2
    ERROR = 3
    """An answer that is an `ErrorReport`."""
    PUBLICATION = 4
    SESSION = 5
    """An answer that requests a repetition, with the answerer's session."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A message with its sender."""

    version: int
    """Version of this format: 1."""
    purpose: Purpose
    """Purpose of the message."""
    sender: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """The public key."""
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    """Time by the sender's clock, since the epoch."""
    nonce: Annotated[bytes, msgspec.Meta(min_length=_NONCE, max_length=_NONCE)]
    """Random, different in each message."""
    about: Annotated[bytes, msgspec.Meta(max_length=64)]
    """For an answer: the request's signature. For a request: the receiver's session, if known."""
    payload: bytes
    """The message."""
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    """Signature over all of this, for one network and key."""
    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """For a control centre that shares its key with others: the epoch of its leadership. 0 means
    that it is alone, and is not signed."""

    @property
    def public_key(self) -> str:
        """The sender's key, base64."""
        return base64.b64encode(self.sender).decode()


def enclose(
    key: SigningKey,
    network: str,
    fabric_key: str,
    purpose: Purpose,
    payload: bytes,
    at_s: float,
    about: bytes = b"",
    epoch: int = 0,
) -> Envelope:
    """Put a payload into a signed envelope."""
    at_ms, nonce = int(1000 * at_s), os.urandom(_NONCE)
    sender = key.public_raw
    message = _signed(network, fabric_key, purpose, sender, at_ms, nonce, about, payload, epoch)
    signature = key.sign_raw(message)
    return Envelope(_VERSION, purpose, sender, at_ms, nonce, about, payload, signature, epoch)


def read_envelope(data: bytes) -> Envelope:
    """Decode an envelope without checking it. Raises `Corrupt`."""
    envelope = decode(data, Envelope)
    if envelope.version != _VERSION:
        raise Corrupt(
            f"the envelope has version {envelope.version}, not {_VERSION}",
            field="version",
            fix="run compatible versions of daitn",
        )
    return envelope


def check_envelope(envelope: Envelope, network: str, fabric_key: str) -> None:
    """Raise `Corrupt` unless the envelope's sender made it for this network and key."""
    message = _signed(
        network,
        fabric_key,
        envelope.purpose,
        envelope.sender,
        envelope.at_ms,
        envelope.nonce,
        envelope.about,
        envelope.payload,
        envelope.epoch,
    )
    check_raw_signature(envelope.sender, envelope.signature, message)


def _signed(
    network: str,
    fabric_key: str,
    purpose: Purpose,
    sender: bytes,
    at_ms: int,
    nonce: bytes,
    about: bytes,
    payload: bytes,
    epoch: int,
) -> bytes:
    digest = blake3(payload).digest()
    stated = (network, fabric_key, purpose, sender, at_ms, nonce, about, digest)
    return _DOMAIN + canonical((*stated, epoch) if epoch else stated)
