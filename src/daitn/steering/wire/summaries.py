"""Capability summaries: what forwarders tell their neighbours that can be reached through them.

They are exchanged like a distance vector. Routes are kept per origin (the site that can do it), so
that the feasibility condition of DUAL and Babel (RFC 8966, section 3.5.1) applies as it stands;
what an origin can do travels with its route. Times are seconds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.steering.wire.intent import Amount, Name, Share
from daitn.steering.wire.malformed import decoded

__all__ = [
    "INFINITE",
    "MOST_UPDATE_BYTES",
    "Greeting",
    "Offer",
    "RouteEntry",
    "SeqnoRequest",
    "Summary",
    "Update",
    "decode_advertised",
    "decode_summary",
    "encode_summary",
]

INFINITE = float("inf")
MOST_UPDATE_BYTES = 1 << 22


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """One thing that an origin can do."""

    key: Name
    """`capability:subject`, for instance `data:medicine/gard`; `answer:medicine/*` where topics
    were aggregated."""
    fit: Share = 0.0
    """Accuracy on the topic as measured, or how well data fits."""
    trust: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    """What `fit` rests on, as in `PacketIntent`."""
    serve_s: Amount = 0.0
    """Expected seconds of doing it once it is begun."""
    wait_s: Amount = 0.0
    """Expected seconds before it is begun."""
    price_usd: Amount = 0.0
    """Per 1,000 tokens, or per 1,000 examples of data."""
    amount: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of data: examples."""
    jurisdiction: Name = ""
    """ISO 3166-1 alpha-2 code of the law that applies there."""
    owner: Name = ""
    """Who provides it."""
    keeps: bool = False
    """Whether what is asked is kept."""
    at_s: Amount = 0.0
    """When this was known, seconds since the Unix epoch, by the origin's clock."""


class RouteEntry(msgspec.Struct, frozen=True, array_like=True):
    """How far an origin is from who says so, and what it offers."""

    origin: Name
    """A site, or a domain by one of its border sites (`daitn.steering.routes.names`)."""
    seqno: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """Counted up by the origin alone; compared modulo 2^16."""
    distance_s: Annotated[float, msgspec.Meta(ge=0.0)]
    """Delay of the route to it, in seconds; infinite: it is not reached any more (a retraction)."""
    edition: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Counted up by the origin whenever its offers change."""
    offers: tuple[Offer, ...] | None = None
    """None where the neighbour was told this edition before."""


class Update(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What changed, or with `whole` all there is: what is not in it is retracted."""

    routes: tuple[RouteEntry, ...]
    """What changed."""
    whole: bool = False
    """Whether what is not in it is retracted."""


class SeqnoRequest(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Asks that an origin count its number up to at least `seqno` (RFC 8966, section 3.8.1.2)."""

    origin: Name
    """Whose number."""
    seqno: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """The least that it is to become."""
    hop_limit: Annotated[int, msgspec.Meta(ge=0, le=64)] = 32
    """How many forwarders may still pass it on."""


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The first message on a link, and again whenever it says something else: who is speaking."""

    domain: Name = ""
    """Of the site that speaks; empty: none."""


Summary = Update | SeqnoRequest
_SUMMARY: msgspec.msgpack.Decoder[Summary] = msgspec.msgpack.Decoder(Summary)
_TOLD: msgspec.msgpack.Decoder[Summary | Greeting] = msgspec.msgpack.Decoder(Summary | Greeting)
_ENCODER = msgspec.msgpack.Encoder()


def encode_summary(summary: Summary | Greeting) -> bytes:
    """The summary, or the greeting before it, in wire form."""
    return _ENCODER.encode(summary)


def decode_summary(wire: bytes) -> Summary:
    """Raises `Corrupt` naming the field."""
    return decoded(wire, _SUMMARY, "summary", MOST_UPDATE_BYTES)


def decode_advertised(wire: bytes) -> Summary | Greeting:
    """What comes on a link and is no packet. Raises `Corrupt` naming the field."""
    return decoded(wire, _TOLD, "summary", MOST_UPDATE_BYTES)
