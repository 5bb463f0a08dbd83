"""Payloads that only a class of receivers can read.

A sender without a destination cannot know who will get its payload. It seals the payload to a class
instead, for instance the facilities of one provider, whose members share a private key; everyone
else who handles the packet sees ciphertext. Sealed bytes are::

    class id (8) | encapsulated key (32) | ciphertext and tag (16 more than sealed)

The class id is the start of BLAKE3 of the class's public key. The rest is HPKE (RFC 9180) in base
mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305, without associated data. Its
`info` names the packet that carries the payload, so the payload opens in no other packet.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from daitn.identity.keys import kept_private, raw_of
from daitn.objects.errors import Corrupt, InvalidInput, Refused
from daitn.objects.layout import WireField

__all__ = ["INFO", "SEALING_BYTES", "ReceiverKey", "class_id", "class_of", "open_sealed", "seal"]

_ID, _PUBLIC, _TAG = 8, 32, 16
SEALED_FIELDS: Final = (
    WireField("class_id", f"{_ID}s", "the first bytes of BLAKE3 of the class's public key"),
    WireField("key", f"{_PUBLIC}s", "encapsulated: a public key made for this payload alone"),
    WireField("sealed", "", "ciphertext and tag", f"{_TAG} more than was sealed"),
)
SEALING_BYTES = _ID + _PUBLIC + _TAG
"""Overhead of sealing."""
INFO: Final = b"daitn aats payload 2"
"""Prefix of HPKE's `info`; the context follows."""
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class ReceiverKey:
    """The private key of a class of receivers."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self._raw = key.public_key().public_bytes_raw()
        self.public = base64.b64encode(self._raw).decode()
        """The class's public key, base64."""

    @classmethod
    def generate(cls) -> ReceiverKey:
        return cls(X25519PrivateKey.generate())

    @classmethod
    def at(cls, path: Path) -> ReceiverKey:
        """Read the key at `path`, or create one, readable only by its owner.

        Raises `InvalidInput` if the file holds something else.
        """
        try:
            raw = kept_private(path, lambda: X25519PrivateKey.generate().private_bytes_raw())
            return cls(X25519PrivateKey.from_private_bytes(raw))
        except ValueError:
            raise InvalidInput(
                f"{path} holds no X25519 key",
                field="key",
                fix="copy it from another receiver of the class, or remove it to create a new "
                "class",
            ) from None

    def _opened(self, sealed: bytes, context: bytes) -> bytes:
        return _SUITE.decrypt(sealed[_ID:], self._key, INFO + context)


def class_id(class_public: str) -> bytes:
    """The 8-byte id of a class in sealed payloads. Raises `InvalidInput` for an invalid key."""
    return blake3(_raw_public(class_public)).digest(_ID)


def class_of(sealed: bytes) -> bytes:
    """The id of the class to which bytes are sealed; meaningless if they are too short."""
    return sealed[:_ID]


def seal(payload: bytes, class_public: str, context: bytes) -> bytes:
    """Seal `payload` to the class with this public key, for this context only.

    Raises `InvalidInput` if the key is invalid.
    """
    receiver = X25519PublicKey.from_public_bytes(_raw_public(class_public))
    try:
        return class_id(class_public) + _SUITE.encrypt(payload, receiver, INFO + context)
    except ValueError:  # A point of low order: the secret would be known to all.
        raise _no_public_key() from None


def open_sealed(sealed: bytes, key: ReceiverKey, context: bytes) -> bytes:
    """Open sealed bytes. Raises `Refused` if another class owns them, `Corrupt` if altered."""
    if len(sealed) < SEALING_BYTES:
        raise Corrupt(
            f"{len(sealed)} bytes cannot be a sealed payload, which has at least {SEALING_BYTES}",
            field="payload",
            fix="see aats-wire.md",
        )
    if class_of(sealed) != class_id(key.public):
        raise Refused(
            f"the payload is sealed to another class of receivers ({sealed[:_ID].hex()})",
            field="payload",
            fix="forward it to a receiver of that class",
        )
    try:
        return key._opened(sealed, context)
    except (InvalidTag, ValueError):
        raise Corrupt(
            "the sealed payload cannot be opened",
            field="payload",
            fix="it was changed in transit, or comes from another packet",
        ) from None


def _raw_public(class_public: str) -> bytes:
    try:
        raw = raw_of(class_public)
    except ValueError:
        raise _no_public_key() from None
    if len(raw) != _PUBLIC:
        raise _no_public_key()
    return raw


def _no_public_key() -> InvalidInput:
    return InvalidInput(
        "a class of receivers is named by an X25519 public key, base64",
        field="class",
        fix="get the key from a facility of the class",
    )
