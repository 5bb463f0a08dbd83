"""Signatures over messages as they were received."""

from __future__ import annotations

import msgspec

from daitn.identity.keys import check_signature
from daitn.objects.errors import Corrupt
from daitn.objects.unknown_fields import is_bounded, is_plain
from daitn.objects.wire import canonical, decode

__all__ = ["check_received"]


def check_received(
    public: str, signature: str, received: bytes, value: msgspec.Struct, domain: bytes = b""
) -> bytes:
    """The signed bytes of what was received and read as `value`. Raises `Corrupt` unless this key
    signed them.

    A peer of a later release may say more than this one knows. One of an earlier release sent it
    in another order than it signed: its signature is over the canonical form.
    """
    known = canonical(value)
    if received != known and is_bounded(received, known):
        try:
            check_signature(public, signature, domain + received)
        except Corrupt:
            pass
        else:
            if _means(received, value):
                return received
    check_signature(public, signature, domain + known)
    return known


def _means(received: bytes, value: msgspec.Struct) -> bool:
    """Whether these bytes have one meaning, which is the value."""
    return is_plain(received) and decode(received, type(value)) == value
