"""Masks, and the secrets that pairs of members share."""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from daitn.learning.secure_sum.fixed_point import Words
from daitn.objects.identifiers import SiteId
from daitn.objects.secure_sum import SumTerms
from daitn.objects.wire import canonical

__all__ = ["add_mask", "commitment", "derived", "neighbours", "pair_key", "pair_mask"]

_KEY_BYTES = 32
_EVERYBODY = 32
"""Up to this many members, all are neighbours."""
_DEGREE = 30
"""Neighbours of a member if there are more. With a tenth of the members lost, fewer than 16 of the
31 holders of a secret are left once in 10^8 secrets (by the binomial)."""


def add_mask(words: Words, key: bytes, *, subtract: bool = False) -> None:
    """Add the mask of a key to numbers, in place: the stream of ChaCha20 (RFC 8439)."""
    encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    mask = np.frombuffer(encryptor.update(bytes(words.nbytes)), "<u8")
    if subtract:
        np.subtract(words, mask, out=words)
    else:
        np.add(words, mask, out=words)


def pair_mask(words: Words, terms: SumTerms, own: SiteId, other: SiteId, key: bytes) -> None:
    """Add the common mask of two members, with the sign of one of them."""
    first, second = sorted((own, other))
    add_mask(words, derived(key, terms, "mask", first, second), subtract=own == second)


def pair_key(private: bytes, public: bytes) -> bytes:
    """The shared secret of two members (X25519). Raises `ValueError` for a key that gives everybody
    the same one."""
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def derived(key: bytes, terms: SumTerms, purpose: str, *names: str) -> bytes:
    """A key of this sum for one purpose (HKDF, RFC 5869)."""
    info = canonical(("daitn secure sum 1", terms, purpose, names))
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(key)


def commitment(seed: bytes) -> bytes:
    """Commitment to a seed, to check it when it is revealed."""
    return hashlib.blake2b(seed, digest_size=_KEY_BYTES, person=b"daitn seed").digest()


def neighbours(terms: SumTerms, member: SiteId) -> frozenset[SiteId]:
    """The members with which a member has masks, and which have shares of its secrets, excluding
    itself.

    Many members stand in a circle, in an order that follows from the terms, and the nearest ones on
    it are neighbours (a Harary graph, as in Bell et al., algorithm 1).
    """
    if len(terms.members) <= _EVERYBODY:
        return frozenset(terms.members) - {member}
    about = canonical(terms)
    circle = sorted(terms.members, key=lambda name: hashlib.blake2b(about + name.encode()).digest())
    at = circle.index(member)
    steps = [step for side in (-1, 1) for step in range(side, side * (_DEGREE // 2 + 1), side)]
    return frozenset(circle[(at + step) % len(circle)] for step in steps)
