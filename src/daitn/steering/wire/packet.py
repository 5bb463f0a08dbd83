"""The destinationless packet: an AI object on the wire.

A packet carries an intent and a payload. It has no destination address: each forwarder decides by
the intent and by what it knows of the network. `docs/reference/aats-wire.md` describes the format
for other implementations.
"""

from __future__ import annotations

import enum
import functools
import re
import struct
from typing import Final, NamedTuple

import msgspec

from daitn.objects.errors import Corrupt
from daitn.objects.layout import WireField, packing
from daitn.objects.steering import MOST_HOPS

__all__ = [
    "HEADER_BYTES",
    "HEADER_FIELDS",
    "HOP_FIELDS",
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
MOST_INTENT_BYTES = 8192
MOST_TRACE_BYTES = MOST_HOPS * 80
MOST_PAYLOAD_BYTES = 1 << 22


class HeaderField(NamedTuple):
    """A header field. Signatures cover those that are not mutable; no forwarder changes these."""

    name: str
    form: str
    """Its `struct` format character."""
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
        f"how many forwarders may still forward it; at most {MOST_HOPS}",
    ),
    HeaderField("priority", "B", False, "larger values go first"),
    HeaderField(
        "object_id",
        "16s",
        False,
        "random; answers and refusals carry the id of their object",
    ),
    HeaderField("deadline_ms", "Q", False, "milliseconds since the Unix epoch; 0 means none"),
    HeaderField("branch", "H", False, "number of the copy; 0 for a single one"),
    HeaderField("attempt", "H", True, "how often the source forwarder had sent it before"),
    HeaderField(
        "advertised_score",
        "I",
        True,
        "in units of 2^-32: the score that the last forwarder expected of the route it chose; for "
        "an answer see below",
    ),
    HeaderField("intent_size", "H", False, "bytes of the intent"),
    HeaderField("trace_size", "H", True, "bytes of the trace"),
    HeaderField("payload_size", "I", False, "bytes of the payload"),
)
_HEADER = struct.Struct("!" + "".join(field.form for field in HEADER_FIELDS))
HEADER_BYTES = _HEADER.size
HOP_FIELDS: Final = (
    WireField("size", "B", "bytes of the site's name, 1 to 63"),
    WireField("at_ms", "I", "when, in milliseconds since the Unix epoch, modulo 2^32"),
    WireField("action", "B", "see below"),
    WireField(
        "site", "", "`a-z`, `0-9`, `.`, `_`, `-`; first and last a letter or a digit", "`size`"
    ),
)
_HOP = packing(HOP_FIELDS)
_SITE = re.compile(rb"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
DIGEST_BYTES = 32
SEAL_BYTES = 96
PACKET_FIELDS: Final = (
    WireField("header", f"{HEADER_BYTES}s", "as below"),
    WireField("intent", "", "an [Intent](#intent)", "`intent_size`"),
    WireField("trace", "", "the [path so far](#trace)", "`trace_size`"),
    WireField("payload", "", "what the object carries", "`payload_size`"),
    WireField(
        "seal",
        "",
        "public key (32 bytes) and [signature](#signature) (64 bytes)",
        f"{SEAL_BYTES} if `SIGNED`, else 0",
    ),
)
"""The parts of a packet."""


class PacketKind(enum.IntEnum):
    """Kinds of packets."""

    QUERY = 1
    """Seeks a model that answers it."""
    MODEL = 2
    """Seeks data to learn from, a verifier, and finally its owner."""
    ANSWER = 3
    """Returns to the source of the object that it answers."""
    REFUSAL = 4
    """Returns to report that an object cannot go on, and why."""
    PROBE = 5
    """Takes the route of an object with its intent, and returns with its path."""


class Flag(enum.IntFlag):
    """Properties of a packet."""

    SEALED = 1
    """The payload is encrypted to a class of receivers."""
    SIGNED = 2
    """A public key and a signature follow the payload."""
    DIGEST = 4
    """The payload is the BLAKE3-256 digest of bytes that the packet's sender holds."""


class Action(enum.IntEnum):
    """What a forwarder did with a packet."""

    FORWARDED = 1
    """It was forwarded."""
    DELIVERED = 2
    """It was delivered there."""
    TRIED = 3
    """It cannot go on from there: a refusal came back, or another copy went there."""


# A forwarder makes two packets from each one that it forwards. Building a struct takes half a
# microsecond; a frozen dataclass takes several.


class Hop(msgspec.Struct, frozen=True, gc=False):
    """An entry of the trace."""

    site: str
    at_ms: int
    """Modulo 2^32."""
    action: Action


class Packet(msgspec.Struct, frozen=True, gc=False):
    """A decoded packet. `trace` stays in wire form: forwarders append to it and search it."""

    kind: PacketKind
    object_id: bytes
    """16 bytes. An answer or refusal has that of its object."""
    intent: bytes
    """A `PacketIntent` in wire form; equal intents have equal bytes."""
    payload: bytes = b""
    flags: Flag = Flag(0)
    hop_limit: int = 32
    """How many forwarders may still forward it."""
    priority: int = 0
    """0 to 255; larger values go first."""
    deadline_ms: int = 0
    """Since the Unix epoch; 0 means none."""
    branch: int = 0
    """Number of this copy of the object (an ensemble has several)."""
    attempt: int = 0
    """How often its source forwarder had sent it before."""
    advertised_score: int = 0
    """The score, in units of 2^-32, that the last forwarder expected at its chosen next hop. The
    next one prefers hops with a higher score, so that packets do not circle. For an answer: number
    of other objects pending where it was given."""
    trace: bytes = b""
    seal: bytes = b""
    """Public key (32 bytes) and signature (64 bytes), if signed."""

    @staticmethod
    def of_trace(trace: bytes) -> Packet:
        """A packet with only a trace, to read its hops."""
        return Packet(PacketKind.PROBE, bytes(16), b"", trace=trace)

    def hops(self) -> tuple[Hop, ...]:
        """The path so far, from the trace. Raises `Corrupt`."""
        trace, end, at = self.trace, len(self.trace), 0
        found = []
        while at < end:
            if end - at < _HOP.size:
                raise _malformed("trace", "its last entry is truncated")
            size, at_ms, action = _HOP.unpack_from(trace, at)
            at += _HOP.size + size
            site = _site_name(trace[at - size : at])
            if at > end or site is None:
                raise _malformed("trace", "an entry has no valid site name")
            if action not in _ACTIONS:
                raise _malformed("trace", f"unknown action {action}")
            found.append(Hop(site, at_ms, _ACTIONS[action]))
        return tuple(found)

    def check_path(self) -> None:
        """Check the trace. Raises `Corrupt` like `hops`, but is much faster when it does not."""
        trace, at, end = self.trace, 0, len(self.trace)
        while at < end:
            name_at = at + _HOP.size
            after = name_at + trace[at]
            if (
                after > end
                or trace[name_at - 1] not in _ACTIONS
                or not _site_name(trace[name_at:after])
            ):
                self.hops()
            at = after

    def visited(self, site: str) -> bool:
        """Whether the trace names the site. Raises `Corrupt` if the trace is truncated."""
        trace, name = self.trace, site.encode()
        # The usual case. `find` takes half the time of `in`.
        if trace.find(name) < 0:
            return False
        at, end, size = 0, len(trace), len(name)
        while at < end:
            start = at + _HOP.size
            if trace[at] == size and trace.startswith(name, start):
                return True
            at = start + trace[at]
        if at > end:
            raise _malformed("trace", "its last entry is truncated")
        return False

    def source(self) -> str:
        """Its source: the first site that forwarded or delivered it; empty before that.

        Raises `Corrupt`.
        """
        for hop in self.hops():
            if hop.action is not Action.TRIED:
                return hop.site
        return ""

    def budget_s(self, now_s: float) -> float:
        """The time from when its source sent it until its deadline, both by the source's clock,
        which is within three weeks of this one; 0 if it has no deadline, no source, or was sent
        late. The trace must have been checked."""
        trace, at = self.trace, 0
        while self.deadline_ms and at < len(trace):
            size, at_ms, action = _HOP.unpack_from(trace, at)
            if action != _TRIED:
                now_ms = int(now_s * 1000)
                ago_ms = (now_ms - at_ms + (1 << 31)) % (1 << 32) - (1 << 31)
                left_ms: int = self.deadline_ms - now_ms + ago_ms
                return max(0, left_ms) / 1000
            at += _HOP.size + size
        return 0.0

    def stepped(self, site: str, at_ms: int, action: Action, advertised_score: int) -> Packet:
        """The packet after one more hop. Raises `Corrupt` if there is no room for it.

        A delivery uses up no hop: a forwarder may deliver a packet that has none left.
        """
        name = site.encode()
        trace = self.trace + _HOP.pack(len(name), at_ms & 0xFFFFFFFF, action) + name
        left = self.hop_limit - (action is not _DELIVERED)
        if left < 0:
            raise _malformed("hop_limit", "it has no hop left")
        if len(trace) > MOST_TRACE_BYTES:
            raise _malformed("trace", f"it would have more than {MOST_TRACE_BYTES} bytes")
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
            advertised_score,
            trace,
            self.seal,
        )

    def signed_bytes(self) -> bytes:
        """The signed bytes: everything that forwarders do not change."""
        return encode_packet(
            msgspec.structs.replace(
                self,
                flags=self.flags | Flag.SIGNED,
                hop_limit=0,
                attempt=0,
                advertised_score=0,
                trace=b"",
                seal=b"",
            )
        )


@functools.lru_cache(maxsize=4096)
def _site_name(name: bytes) -> str | None:
    """The name as text; None if it is not a site's."""
    return name.decode() if _SITE.fullmatch(name) else None


_KINDS = {int(kind): kind for kind in PacketKind}
_ACTIONS = {int(action): action for action in Action}
_FLAGS = tuple(Flag(bits) for bits in range(8))
_SIGNED, _DIGEST = int(Flag.SIGNED), int(Flag.DIGEST)
_DELIVERED = Action.DELIVERED
_TRIED = int(Action.TRIED)


def encode_packet(packet: Packet) -> bytes:
    """Encode a packet."""
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
        packet.advertised_score,
        len(intent),
        len(trace),
        len(payload),
    )
    return b"".join((head, intent, trace, payload, packet.seal))


def decode_packet(wire: bytes) -> Packet:
    """Decode a packet from an untrusted source. Raises `Corrupt` naming the field.

    The trace is not decoded here: most forwarders only append to it.
    """
    if len(wire) < HEADER_BYTES:
        raise _malformed("packet", f"it has {len(wire)} bytes, a header has {HEADER_BYTES}")
    (
        magic, version, kind, flags, hop_limit, priority, object_id, deadline_ms,
        branch, attempt, advertised_score, intent_size, trace_size, payload_size,
    ) = _HEADER.unpack_from(wire)  # fmt: skip
    if magic != MAGIC:
        raise _malformed("magic", f"it starts with {magic:#06x}, not {MAGIC:#06x}")
    if version != VERSION:
        raise _malformed("version", f"it has version {version}, not {VERSION}")
    if kind not in _KINDS:
        raise _malformed("kind", f"unknown kind {kind}")
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
        raise _malformed("packet", f"its {len(wire)} bytes are not what its header states")
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
        advertised_score,
        wire[trace_at:payload_at],
        wire[seal_at:],
    )


def _malformed(where: str, problem: str) -> Corrupt:
    return Corrupt(f"the packet is malformed: {problem}", field=where, fix="see aats-wire.md")
