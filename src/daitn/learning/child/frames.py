"""Framed MessagePack over pipes: a length (four bytes, big-endian), then that many bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from daitn.objects.wire import encode

__all__ = ["HEADER", "MAX_FRAME_BYTES", "REST_OF_FRAME_WITHIN_S", "FrameReader", "Ready", "framed"]

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 16 << 20
"""Far above any command or reply: models and data travel as paths."""
REST_OF_FRAME_WITHIN_S = 10.0
"""A child writes a frame at once, so an unfinished frame is invalid."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The child accepts commands. Sent once, when its engine is loaded."""


def framed(message: msgspec.Struct) -> bytes:
    """A message as one frame. Raises `ValueError` if it is larger than the receiver accepts."""
    payload = encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(payload)} bytes exceeds {MAX_FRAME_BYTES}")
    return HEADER.pack(len(payload)) + payload


class FrameReader:
    """Finds the frames in bytes as they arrive."""

    def __init__(self) -> None:
        self._left = bytearray()

    @property
    def amid(self) -> bool:
        """Whether a frame has begun but not ended."""
        return bool(self._left)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are now complete. Raises `ValueError` for an unacceptable frame."""
        self._left += data
        while len(self._left) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._left)
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"announced a reply of {size} bytes")
            end = HEADER.size + size
            if len(self._left) < end:
                return
            payload = bytes(self._left[HEADER.size : end])
            del self._left[:end]
            yield payload
