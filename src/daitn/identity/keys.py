"""Ed25519 keys (RFC 8032), with which sites sign their lineage entries and adverts."""

from __future__ import annotations

import base64
import functools
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from cachetools import LRUCache
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from daitn.files.atomic import make_folder, replace_file
from daitn.objects.errors import Corrupt, InvalidInput

__all__ = [
    "SigningKey",
    "check_raw_signature",
    "check_signature",
    "check_signature_once",
    "kept_private",
    "key_mark",
    "raw_of",
]

_MARK_DIGITS = 16
"""64 bits: chance collisions are negligible, and the full key signs everything that matters."""


class SigningKey:
    """A site's private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_raw = key.public_key().public_bytes_raw()
        """The public key, 32 bytes."""
        self.public = base64.b64encode(self.public_raw).decode()
        """The public key, base64."""

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, raw: bytes) -> SigningKey:
        """The key in these 32 bytes. Raises `ValueError` for another number of bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    @classmethod
    def at(cls, path: Path) -> SigningKey:
        """Read the key at `path`, or create one, readable only by its owner.

        Raises `InvalidInput` if the file holds something else.
        """
        try:
            raw = kept_private(path, lambda: Ed25519PrivateKey.generate().private_bytes_raw())
            return cls.of(raw)
        except ValueError:
            raise InvalidInput(
                f"{path} holds no Ed25519 key",
                field="key",
                fix="restore the file, or remove it to let the site start with a new identity",
            ) from None

    def sign(self, message: bytes) -> str:
        """The signature of `message`, base64."""
        return base64.b64encode(self.sign_raw(message)).decode()

    def sign_raw(self, message: bytes) -> bytes:
        """The signature of `message`, 64 bytes."""
        return self._key.sign(message)

    def derived(self, purpose: bytes, length: int) -> bytes:
        """Secret bytes for another algorithm, always the same for one purpose (HKDF, RFC 5869)."""
        return HKDF(SHA256(), length, salt=None, info=purpose).derive(self._key.private_bytes_raw())

    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """A certificate issued by this key."""
        return builder.sign(self._key, None)


def key_mark(public: str) -> str:
    """A short name for a public key, usable as part of a fabric key."""
    return hashlib.sha256(public.encode()).hexdigest()[:_MARK_DIGITS]


def raw_of(text: str, altchars: bytes | None = None) -> bytes:
    """The bytes of a key or a signature in base64. `altchars` as in `base64`.

    Raises `ValueError` for any form but the one in which it is written: padding bits and white
    space would give one signature several names.
    """
    raw = base64.b64decode(text, altchars, validate=True)
    if base64.b64encode(raw, altchars).decode() != text:
        raise ValueError("not in the form in which base64 is written")
    return raw


def is_key(text: str) -> bool:
    """Whether a text is a public key in the form of `SigningKey.public`."""
    try:
        return len(raw_of(text)) == 32
    except ValueError:
        return False


def check_signature(public: str, signature: str, message: bytes) -> None:
    """Raise `Corrupt` unless `signature` over `message` was made with the key of `public`."""
    try:
        check_raw_signature(raw_of(public), raw_of(signature), message)
    except ValueError:
        raise _mismatch() from None


def check_signature_once(public: str, signature: str, message: bytes) -> None:
    """Like `check_signature`, for repeated data. Only valid results are cached, and of messages,
    which strangers make as large as they like, their digests."""
    key = (public, signature, hashlib.blake2b(message, digest_size=32).digest())
    with _lock:
        known = key in _checked
    if not known:
        check_signature(public, signature, message)
        with _lock:
            _checked[key] = True


_checked: LRUCache[tuple[str, str, bytes], bool] = LRUCache(1 << 14)
_lock = threading.Lock()


def check_raw_signature(public: bytes, signature: bytes, message: bytes) -> None:
    """Likewise, for a key of 32 bytes and a signature of 64."""
    try:
        _loaded(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise _mismatch() from None


@functools.lru_cache(maxsize=1024)
def _loaded(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


def _mismatch() -> Corrupt:
    return Corrupt(
        "signature does not match",
        field="signature",
        fix="the message was changed in transit, or its sender has another key",
    )


def kept_private(path: Path, fresh: Callable[[], bytes]) -> bytes:
    """Read a private key from a file; create the file, readable only by its owner, if missing.

    Raises `ValueError` if the file is not base64.
    """
    if not path.exists():
        make_folder(path.parent)
        replace_file(path, base64.b64encode(fresh()), private=True)
    return base64.b64decode(path.read_bytes(), validate=True)
