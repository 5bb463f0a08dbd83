"""The intent of an AI object, as its packet carries it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.steering.wire.malformed import decoded
from daitn.steering.wire.packet import MOST_INTENT_BYTES

__all__ = ["Capability", "PacketIntent", "decode_intent", "encode_intent"]

Name = Annotated[str, msgspec.Meta(max_length=200)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]


class Capability:
    """Kinds of what a site can do for an object, the first half of an offer's key."""

    ANSWER = "answer"
    """A deployed model answers; the second half is a topic."""
    MODEL = "model"
    """A deployed model of that name answers."""
    DATA = "data"
    """Data of that topic, from which a model may learn."""
    VERIFY = "verify"
    """A private test set of that topic."""
    HOME = "home"
    """The owner of objects that set out from the site of that name is reached there."""


class PacketIntent(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """The intent of a packet: a MessagePack array of these fields, in this order.

    A reader ignores further elements, so that later versions can append.
    """

    capability: Name
    """`answer`, `model`, `data`, `verify` or `home`."""
    subject: Name
    """A topic, a model's name or a site's; empty: any."""
    owner: Name = ""
    """Who asks; forwarders bound what one owner sends."""
    min_fit: Share = 0.0
    """Least verified accuracy on the topic."""
    trust: Annotated[int, msgspec.Meta(ge=0, le=2)] = 1
    """0: a claim is enough; 1: the weights were verified; 2: the deployment was asked."""
    max_cost_usd: Amount | None = None
    """Highest expected cost."""
    jurisdictions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """ISO 3166-1 alpha-2 codes; empty: any."""
    owners: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """Providers that may get the object; empty: any."""
    unkept: bool = False
    """Only where nothing is kept."""
    tokens_in: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """Tokens of the question."""
    tokens_out: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """Tokens of the answer."""
    examples: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """How many examples of data the object would learn from."""
    prefer: Annotated[dict[Name, Amount], msgspec.Meta(max_length=16)] = {}
    """Scorer to weight, in place of the forwarders' own."""


_DECODER = msgspec.msgpack.Decoder(PacketIntent)
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def encode_intent(intent: PacketIntent) -> bytes:
    """Equal intents give equal bytes. Raises `Corrupt` for one that no reader would accept."""
    # Reading it back makes floats of the whole numbers that stand where floats belong.
    return _ENCODER.encode(decode_intent(_ENCODER.encode(intent)))


def decode_intent(wire: bytes) -> PacketIntent:
    """Raises `Corrupt` naming the field."""
    return decoded(wire, _DECODER, "intent", MOST_INTENT_BYTES)
