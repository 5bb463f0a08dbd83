"""Framed MessagePack over pipes: a length (four bytes, big-endian), then that many bytes."""

from __future__ import annotations

import struct

import msgspec

from daitn.objects.wire import encode

__all__ = ["HEADER", "MAX_FRAME_BYTES", "Ready", "framed"]

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 16 << 20
"""Far above any command or reply: models and data travel as paths."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The child takes commands. Sent once, when its engine is loaded."""


def framed(message: msgspec.Struct) -> bytes:
    """A message as one frame. Raises `ValueError` if it is larger than the receiver accepts."""
    payload = encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(payload)} bytes exceeds {MAX_FRAME_BYTES}")
    return HEADER.pack(len(payload)) + payload
