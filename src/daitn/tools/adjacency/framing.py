"""Wire format between the two ends of a link: hellos and frames. Both begin with a head."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from daitn.objects.errors import Corrupt
from daitn.objects.layout import WireField, packing
from daitn.tools.adjacency.protocol import MOST_MESSAGE_BYTES

__all__ = [
    "FRAME_BYTES",
    "FRAME_FIELDS",
    "HELLO_FIELDS",
    "Frame",
    "Hello",
    "Nonces",
    "decode",
    "encode_frame",
    "encode_hello",
]

FRAME_BYTES: Final = 256 << 10
"""Size of messages that travel together. A larger message travels alone."""
_MOST_BYTES: Final = MOST_MESSAGE_BYTES + 1024

_HELLO_KIND, _FRAME_KIND = 1, 2
HEAD_FIELDS: Final = (
    WireField("kind", "B", "1: hello, 2: frame"),
    WireField("sender", "Q", "nonce of the sending end"),
    WireField("receiver", "Q", "nonce of the other end that was received last; 0 means none"),
)
HELLO_FIELDS: Final = (
    *HEAD_FIELDS,
    WireField("sent_us", "Q", "when it was sent, by the sender's clock; not 0"),
    WireField(
        "echo_us", "Q", "the `sent_us` of the hello that the sender received last; 0 means none"
    ),
    WireField("held_us", "I", "time since the sender received it"),
)
FRAME_FIELDS: Final = (
    *HEAD_FIELDS,
    WireField("number", "I", "0 for the first frame since the link came up; counts modulo 2^32"),
    WireField("count", "I", "how many messages"),
    WireField("sizes", "", "bytes of each message", "4 each"),
    WireField("messages", "", "without gaps", "as `sizes` say"),
)
_HELLO, _FRAME = packing(HELLO_FIELDS), packing(FRAME_FIELDS)


class Nonces(NamedTuple):
    """Sender and receiver of a message; each end draws a new nonce whenever it loses the link."""

    sender: int
    receiver: int
    """0 if the sender does not receive the receiver."""


class Hello(NamedTuple):
    """Announces its sender, and the end from which it receives."""

    nonces: Nonces
    sent_us: int
    echo_us: int = 0
    held_us: int = 0


class Frame(NamedTuple):
    """Messages that travel together."""

    nonces: Nonces
    number: int
    """Counts the frames since the link came up, modulo 2^32."""
    messages: list[bytes]


def encode_hello(hello: Hello) -> bytes:
    """A hello in wire form."""
    return _HELLO.pack(
        _HELLO_KIND, *hello.nonces, hello.sent_us, hello.echo_us, min(hello.held_us, 0xFFFFFFFF)
    )


def encode_frame(nonces: Nonces, number: int, messages: Sequence[bytes]) -> bytes:
    """A frame in wire form."""
    count = len(messages)
    head = _FRAME.pack(_FRAME_KIND, *nonces, number & 0xFFFFFFFF, count)
    return b"".join((head, struct.pack(f"!{count}I", *map(len, messages)), *messages))


def decode(wire: bytes) -> Hello | Frame:
    """Decode a neighbour's message, without trusting it. Raises `Corrupt`."""
    if not wire or len(wire) > _MOST_BYTES:
        raise _malformed(f"it has {len(wire)} bytes")
    if wire[0] == _FRAME_KIND:
        return _frame(wire)
    if wire[0] == _HELLO_KIND and len(wire) == _HELLO.size:
        _, sender, receiver, *times = _HELLO.unpack(wire)
        return Hello(Nonces(sender, receiver), *times)
    raise _malformed(f"it is of kind {wire[0]} and has {len(wire)} bytes")


def _frame(wire: bytes) -> Frame:
    if len(wire) < _FRAME.size:
        raise _malformed("its head is cut")
    _, sender, receiver, number, count = _FRAME.unpack_from(wire)
    at = _FRAME.size + 4 * count
    if len(wire) < at:
        raise _malformed(f"it names {count} messages and is too short for that")
    messages = []
    for size in struct.unpack_from(f"!{count}I", wire, _FRAME.size):
        messages.append(wire[at : at + size])
        at += size
    if at != len(wire):
        raise _malformed(f"its messages have {at} bytes, it has {len(wire)}")
    return Frame(Nonces(sender, receiver), number, messages)


def _malformed(problem: str) -> Corrupt:
    return Corrupt(
        f"the link message is malformed: {problem}",
        field="frame",
        fix="run the same version at both ends of the link",
    )
