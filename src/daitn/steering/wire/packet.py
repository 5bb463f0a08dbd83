"""The destinationless packet: what an AI object looks like on its way.

A packet says what is wanted and carries what it is about. It has no destination address: each
forwarder decides from the intent and from what it knows of the network. `docs/reference/
aats-wire.md` describes the format for other implementations.
"""

from __future__ import annotations

import enum
import functools
import re
import struct
from typing import Final, NamedTuple

import msgspec

from daitn.objects.errors import Corrupt

__all__ = [
    "HEADER_BYTES",
    "HEADER_FIELDS",
    "MOST_HOPS",
    "MOST_INTENT_BYTES",
    "MOST_PAYLOAD_BYTES",
    "VERSION",
    "Action",
    "Flag",
    "Hop",
    "Packet",
    "PacketKind",
    "decode_packet",
    "encode_packet",
]

MAGIC = 0xDA17
VERSION = 1
MOST_HOPS = 64
MOST_INTENT_BYTES = 8192
MOST_TRACE_BYTES = MOST_HOPS * 80
MOST_PAYLOAD_BYTES = 1 << 22


class HeaderField(NamedTuple):
    """A field of the header. What is not mutable is signed, and no forwarder changes it."""

    name: str
    form: str
    """As `struct` has it."""
    mutable: bool
    meaning: str

    @property
    def size(self) -> int:
        """In bytes."""
        return struct.calcsize(f"!{self.form}")


HEADER_FIELDS: Final = (
    HeaderField("magic", "H", False, f"`{MAGIC:#06x}`"),
    HeaderField("version", "B", False, str(VERSION)),
    HeaderField("kind", "B", False, "see below"),
    HeaderField("flags", "H", False, "see below"),
    HeaderField(
        "hop_limit",
        "B",
        True,
        f"how many forwarders may still pass it on; at most {MOST_HOPS}",
    ),
    HeaderField("priority", "B", False, "larger goes first"),
    HeaderField(
        "object_id",
        "16s",
        False,
        "random; an answer and a refusal carry the id of the object that they are about",
    ),
    HeaderField("deadline_ms", "Q", False, "milliseconds since the Unix epoch; 0: none"),
    HeaderField("branch", "H", False, "which of an object's copies; of a single one 0"),
    HeaderField(
        "attempt", "H", True, "how often the forwarder where it set out had sent it before"
    ),
    HeaderField(
        "promise",
        "I",
        True,
        "the advertised score, in units of 2^-32: what the last forwarder expected of where it "
        "sent the packet; of an answer see below",
    ),
    HeaderField("intent_size", "H", False, "bytes of the intent"),
    HeaderField("trace_size", "H", True, "bytes of the trace"),
    HeaderField("payload_size", "I", False, "bytes of the payload"),
)
_HEADER = struct.Struct("!" + "".join(field.form for field in HEADER_FIELDS))
HEADER_BYTES = _HEADER.size
_HOP = struct.Struct("!BIB")
_SITE = re.compile(rb"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
DIGEST_BYTES = 32
SEAL_BYTES = 96


class PacketKind(enum.IntEnum):
    """What a packet is."""

    QUERY = 1
    """Looks for a model that answers it."""
    MODEL = 2
    """Looks for data to learn from, a unit to measure it, and in the end its owner."""
    ANSWER = 3
    """Goes back to whom it answers."""
    REFUSAL = 4
    """Goes back and says that an object cannot go on this way, with the reason."""
    PROBE = 5
    """Goes where a query would go, and comes back with what it saw."""


class Flag(enum.IntFlag):
    """Properties of a packet."""

    SEALED = 1
    """The payload is encrypted to the class of receivers that may read it."""
    SIGNED = 2
    """A public key and a signature follow the payload."""
    DIGEST = 4
    """The payload is the BLAKE3-256 digest of bytes that the sender of the packet holds."""
    TRACED = 8
    """Forwarders keep what they knew and why they chose, for `daitn trace`."""


class Action(enum.IntEnum):
    """What a forwarder did with a packet."""

    FORWARDED = 1
    """The packet was passed on."""
    DELIVERED = 2
    """The packet was delivered there."""
    TRIED = 3
    """The packet cannot go on from there: it came back by a refusal, or another copy is there."""


# A forwarder makes two packets of each that it passes on, so they are structs: these are built at
# half a microsecond, frozen dataclasses at several.


class Hop(msgspec.Struct, frozen=True, gc=False):
    """One entry of the path trace."""

    site: str
    at_ms: int
    """Modulo 2^32."""
    action: Action


class Packet(msgspec.Struct, frozen=True, gc=False):
    """A packet, decoded. `trace` stays in wire form: forwarders append to it and search it."""

    kind: PacketKind
    object_id: bytes
    """16 bytes; an answer, a refusal carries the id of the object that it is about."""
    intent: bytes
    """A `PacketIntent` in wire form; equal intents have equal bytes."""
    payload: bytes = b""
    flags: Flag = Flag(0)
    hop_limit: int = 32
    """How many forwarders may still pass it on."""
    priority: int = 0
    """0 to 255; larger goes first."""
    deadline_ms: int = 0
    """Since the Unix epoch; 0: none."""
    branch: int = 0
    """Which of an object's copies (an ensemble has several)."""
    attempt: int = 0
    """How often the forwarder where it set out had sent it before."""
    promise: int = 0
    """The score, in units of 2^-32, that the last forwarder expected of where it sent the packet:
    the next one goes on only where it expects more, so that packets do not circle."""
    trace: bytes = b""
    seal: bytes = b""
    """Public key (32 bytes) and signature (64 bytes) where it is signed."""

    @staticmethod
    def of_trace(trace: bytes) -> Packet:
        """A packet of which nothing is known but its path, to read it."""
        return Packet(PacketKind.PROBE, bytes(16), b"", trace=trace)

    def hops(self) -> tuple[Hop, ...]:
        """The path so far. Raises `Corrupt`."""
        trace, end, at = self.trace, len(self.trace), 0
        found = []
        while at < end:
            if end - at < _HOP.size:
                raise _malformed("trace", "its last entry is cut")
            size, at_ms, action = _HOP.unpack_from(trace, at)
            at += _HOP.size + size
            site = _named(trace[at - size : at])
            if at > end or site is None:
                raise _malformed("trace", "an entry names no site")
            if action not in _ACTIONS:
                raise _malformed("trace", f"there is no action {action}")
            found.append(Hop(site, at_ms, _ACTIONS[action]))
        return tuple(found)

    def check_path(self) -> None:
        """Raises `Corrupt` where `hops` would, in much less time where it would not."""
        trace, at, end = self.trace, 0, len(self.trace)
        while at < end:
            name_at = at + _HOP.size
            after = name_at + trace[at]
            if (
                after > end
                or trace[name_at - 1] not in _ACTIONS
                or not _named(trace[name_at:after])
            ):
                self.hops()
            at = after

    def visited(self, site: str) -> bool:
        """Whether the site is on the path so far. Raises `Corrupt` where the path is cut."""
        trace, name = self.trace, site.encode()
        # A search in C, and the usual case. `in` takes twice the time.
        if trace.find(name) < 0:
            return False
        at, end, size = 0, len(trace), len(name)
        while at < end:
            start = at + _HOP.size
            if trace[at] == size and trace.startswith(name, start):
                return True
            at = start + trace[at]
        if at > end:
            raise _malformed("trace", "its last entry is cut")
        return False

    def source(self) -> str:
        """The site that it set out from: the first that did more than try; empty before that.

        Raises `Corrupt`.
        """
        for hop in self.hops():
            if hop.action is not Action.TRIED:
                return hop.site
        return ""

    def stepped(self, site: str, at_ms: int, action: Action, promise: int) -> Packet:
        """The packet after one more hop. Raises `Corrupt` where there is no room for it.

        What is delivered uses up no hop: the last forwarder may pass a packet on to where it ends.
        """
        name = site.encode()
        trace = self.trace + _HOP.pack(len(name), at_ms & 0xFFFFFFFF, action) + name
        left = self.hop_limit - (action is not _DELIVERED)
        if left < 0:
            raise _malformed("hop_limit", "it has no hop left")
        if len(trace) > MOST_TRACE_BYTES:
            raise _malformed("trace", f"it has at most {MOST_TRACE_BYTES} bytes")
        return Packet(
            self.kind,
            self.object_id,
            self.intent,
            self.payload,
            self.flags,
            left,
            self.priority,
            self.deadline_ms,
            self.branch,
            self.attempt,
            promise,
            trace,
            self.seal,
        )

    def signed_bytes(self) -> bytes:
        """What a signature is over: all that forwarders do not change."""
        return encode_packet(
            msgspec.structs.replace(
                self,
                flags=self.flags | Flag.SIGNED,
                hop_limit=0,
                attempt=0,
                promise=0,
                trace=b"",
                seal=b"",
            )
        )


@functools.lru_cache(maxsize=4096)
def _named(name: bytes) -> str | None:
    """The site of that name; None: it is no name."""
    return name.decode() if _SITE.fullmatch(name) else None


_KINDS = {int(kind): kind for kind in PacketKind}
_ACTIONS = {int(action): action for action in Action}
_FLAGS = tuple(Flag(bits) for bits in range(16))
_SIGNED, _DIGEST = int(Flag.SIGNED), int(Flag.DIGEST)
_DELIVERED = Action.DELIVERED


def encode_packet(packet: Packet) -> bytes:
    """The packet in wire form."""
    intent, trace, payload = packet.intent, packet.trace, packet.payload
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        packet.kind,
        packet.flags,
        packet.hop_limit,
        packet.priority,
        packet.object_id,
        packet.deadline_ms,
        packet.branch,
        packet.attempt,
        packet.promise,
        len(intent),
        len(trace),
        len(payload),
    )
    return b"".join((head, intent, trace, payload, packet.seal))


def decode_packet(wire: bytes) -> Packet:
    """The packet in `wire`. Raises `Corrupt`, which names the field; trusts nothing.

    The trace is read when it is asked for: most forwarders only append to it.
    """
    if len(wire) < HEADER_BYTES:
        raise _malformed("packet", f"it has {len(wire)} bytes, a header has {HEADER_BYTES}")
    (
        magic, version, kind, flags, hop_limit, priority, object_id, deadline_ms,
        branch, attempt, promise, intent_size, trace_size, payload_size,
    ) = _HEADER.unpack_from(wire)  # fmt: skip
    if magic != MAGIC:
        raise _malformed("magic", f"it starts with {magic:#06x}, not {MAGIC:#06x}")
    if version != VERSION:
        raise _malformed("version", f"it is of version {version}; {VERSION} is read here")
    if kind not in _KINDS:
        raise _malformed("kind", f"there is no kind {kind}")
    if flags >= len(_FLAGS):
        raise _malformed("flags", f"unknown bits are set: {flags:#06x}")
    if hop_limit > MOST_HOPS:
        raise _malformed("hop_limit", f"{hop_limit} is more than {MOST_HOPS}")
    if intent_size > MOST_INTENT_BYTES:
        raise _malformed("intent", f"{intent_size} bytes are more than {MOST_INTENT_BYTES}")
    if trace_size > MOST_TRACE_BYTES:
        raise _malformed("trace", f"{trace_size} bytes are more than {MOST_TRACE_BYTES}")
    if payload_size > MOST_PAYLOAD_BYTES:
        raise _malformed("payload", f"{payload_size} bytes are more than {MOST_PAYLOAD_BYTES}")
    if flags & _DIGEST and payload_size != DIGEST_BYTES:
        raise _malformed("payload", f"a digest has {DIGEST_BYTES} bytes, not {payload_size}")
    trace_at = HEADER_BYTES + intent_size
    payload_at = trace_at + trace_size
    seal_at = payload_at + payload_size
    if len(wire) != seal_at + (SEAL_BYTES if flags & _SIGNED else 0):
        raise _malformed("packet", f"its {len(wire)} bytes are not what its header says")
    return Packet(
        _KINDS[kind],
        object_id,
        wire[HEADER_BYTES:trace_at],
        wire[payload_at:seal_at],
        _FLAGS[flags],
        hop_limit,
        priority,
        deadline_ms,
        branch,
        attempt,
        promise,
        wire[trace_at:payload_at],
        wire[seal_at:],
    )


def _malformed(where: str, problem: str) -> Corrupt:
    return Corrupt(f"the packet is malformed: {problem}", field=where, fix="see aats-wire.md")
