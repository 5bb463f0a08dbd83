"""HPKE (RFC 9180, sections 4.1 and 5.1) by hand, with its randomness given: the sender's half.

An oracle for what the library does, and the source of test vectors that stay as they are.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["hpke_seal"]

_KEM = b"KEM" + bytes.fromhex("0020")
_SUITE = b"HPKE" + bytes.fromhex("002000010003")


def hpke_seal(payload: bytes, receiver: bytes, ephemeral: X25519PrivateKey, info: bytes) -> bytes:
    """Encapsulated key, ciphertext and tag, for a receiver's raw public key."""
    own = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(receiver))
    extracted = _extract(_KEM, b"", b"eae_prk", shared)
    secret = _expand(_KEM, extracted, b"shared_secret", own + receiver)
    hashes = (_extract(_SUITE, b"", b"psk_id_hash", b""), _extract(_SUITE, b"", b"info_hash", info))
    context = b"\0" + b"".join(hashes)
    scheduled = _extract(_SUITE, secret, b"secret", b"")
    key = _expand(_SUITE, scheduled, b"key", context)
    nonce = _expand(_SUITE, scheduled, b"base_nonce", context, 12)
    return own + ChaCha20Poly1305(key).encrypt(nonce, payload, None)


def _extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + key, hashlib.sha256)


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int = 32) -> bytes:
    """Of at most 32 bytes: HKDF-Expand's first block."""
    labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\1", hashlib.sha256)[:size]
