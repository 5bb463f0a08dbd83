"""Capability summaries: what forwarders advertise to their neighbours as reachable through them.

They are exchanged like a distance vector. Routes are kept per origin (the site that can do it), so
that the feasibility condition of DUAL and Babel (RFC 8966, section 3.5.1) applies unchanged; an
origin's offers travel with its route. Times are in seconds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.bounds import Share
from daitn.objects.steering import MOST_HOPS
from daitn.steering.wire.intent import Amount, Mask, Name
from daitn.steering.wire.malformed import decoded

__all__ = [
    "INFINITE",
    "MOST_KINDS",
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
MOST_KINDS = 8
MOST_UPDATE_BYTES = 1 << 22


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """One service of an origin."""

    key: Name
    """`capability:subject`, for instance `data:medicine/gard`; `answer:medicine/*` if topics were
    aggregated."""
    fit: Share = 0.0
    """Measured accuracy on the topic, or the fit of data."""
    trust: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    """Evidence for `fit`, as in `PacketIntent`."""
    serve_s: Amount = 0.0
    """Expected seconds to serve an object, without waiting."""
    wait_s: Amount = 0.0
    """Expected seconds until serving starts."""
    price_usd: Amount = 0.0
    """Price per 1,000 tokens, or per 1,000 examples of data."""
    amount: Annotated[int, msgspec.Meta(ge=0)] = 0
    """For data: number of examples. For deployments: number of objects served at a time."""
    jurisdiction: Name = ""
    """ISO 3166-1 alpha-2 code of the jurisdiction."""
    owner: Name = ""
    """The provider."""
    keeps: bool = False
    """Whether queries are stored there."""
    at_s: Amount = 0.0
    """Time of this information: seconds since the Unix epoch, by the origin's clock."""
    abilities: Annotated[tuple[Mask, ...], msgspec.Meta(max_length=MOST_KINDS)] = ()
    """For deployments: the needs that one of them meets, as in `needs` of an intent; one number for
    each kind of deployment in the offer; empty means unknown, hence any."""
    context_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """For deployments: the longest context in tokens; 0 means any."""
    languages: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """For deployments: ISO 639 codes of the languages that one of them supports; empty means
    any."""


class RouteEntry(msgspec.Struct, frozen=True, array_like=True):
    """An origin's distance from the sender, and its offers."""

    origin: Name
    """A site, or a domain through one of its border sites (`daitn.steering.routes.names`)."""
    seqno: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """Sequence number, incremented only by the origin; compared modulo 2^16."""
    distance_s: Annotated[float, msgspec.Meta(ge=0.0)]
    """Delay of the route to it, in seconds; infinite means no longer reachable (a retraction)."""
    edition: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Incremented by the origin whenever its offers change."""
    offers: tuple[Offer, ...] | None = None
    """Nil means as the sender advertised them earlier in this edition."""


class Update(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What changed or, with `whole`, everything."""

    routes: tuple[RouteEntry, ...]
    """The routes that changed."""
    whole: bool = False
    """Whether routes not listed are retracted."""


class SeqnoRequest(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Asks an origin to increment its sequence number to at least `seqno` (RFC 8966, section
    3.8.1.2)."""

    origin: Name
    """The requested origin."""
    seqno: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """The lowest number that satisfies the request."""
    hop_limit: Annotated[int, msgspec.Meta(ge=0, le=MOST_HOPS)] = 32
    """How many forwarders may still forward it."""


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Names the sender's domain: the first message on a link, repeated when the domain changes."""

    domain: Name = ""
    """The sender's domain; empty means none."""


Summary = Update | SeqnoRequest
_SUMMARY: msgspec.msgpack.Decoder[Summary] = msgspec.msgpack.Decoder(Summary)
_MESSAGE: msgspec.msgpack.Decoder[Summary | Greeting] = msgspec.msgpack.Decoder(Summary | Greeting)
_ENCODER = msgspec.msgpack.Encoder()


def encode_summary(summary: Summary | Greeting) -> bytes:
    """Encode a summary, or the greeting before it."""
    return _ENCODER.encode(summary)


def decode_summary(wire: bytes) -> Summary:
    """Raises `Corrupt` naming the field."""
    return decoded(wire, _SUMMARY, "summary", MOST_UPDATE_BYTES)


def decode_advertised(wire: bytes) -> Summary | Greeting:
    """Decode a message of a link that is not a packet. Raises `Corrupt` naming the field."""
    return decoded(wire, _MESSAGE, "summary", MOST_UPDATE_BYTES)
