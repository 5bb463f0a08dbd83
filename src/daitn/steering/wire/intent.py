"""The intent of an AI object, as its packet carries it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.bounds import Share
from daitn.objects.identifiers import Word
from daitn.steering.wire.malformed import decoded
from daitn.steering.wire.packet import MOST_INTENT_BYTES

__all__ = ["UNMEASURED", "Capability", "Mask", "PacketIntent", "decode_intent", "encode_intent"]

Name = Word
Mask = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]


class Capability:
    """A site's service for an object: the first half of an offer's key."""

    ANSWER = "answer"
    """A deployed model that answers; the second half is a topic."""
    MODEL = "model"
    """A deployed model by its name."""
    DATA = "data"
    """Data on a topic, from which a model may learn."""
    VERIFY = "verify"
    """A private test set on a topic."""
    HOME = "home"
    """The owner of objects that set out from the named site."""


UNMEASURED = "unmeasured"
"""The topic for deployments of unknown accuracy: they serve queries on any topic that demand
none."""


class PacketIntent(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """The intent of a packet: a MessagePack array of these fields, in this order.

    A reader ignores further elements, so that later versions can append.
    """

    capability: Name
    """`answer`, `model`, `data`, `verify` or `home`."""
    subject: Name
    """A topic, or the name of a model or site; empty means any."""
    owner: Name = ""
    """The owner; forwarders limit the rate of each owner."""
    min_fit: Share = 0.0
    """Minimum verified accuracy on the topic."""
    trust: Annotated[int, msgspec.Meta(ge=0, le=2)] = 1
    """Required trust: 0 accepts a claim, 1 requires verified weights, 2 a verified deployment."""
    max_cost_usd: Amount | None = None
    """Maximum expected cost."""
    jurisdictions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """ISO 3166-1 alpha-2 codes; empty means any."""
    owners: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """Providers that may receive the object; empty means any."""
    unkept: bool = False
    """Whether only sites that store no queries may serve it."""
    tokens_in: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """Tokens of the question."""
    tokens_out: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """Tokens of the answer."""
    examples: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Number of examples that the object would train on."""
    prefer: Annotated[dict[Name, Amount], msgspec.Meta(max_length=16)] = {}
    """Weight per scorer; overrides the forwarders' own weights."""
    needs: Mask = 0
    """What the model must support: the sum of 2^n over the needs, numbered from 0 as in the table
    of needs."""
    language: Name = ""
    """ISO 639 code of a language that the model must support; empty means any."""
    tokens_at_once: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    """Tokens of the question that the model reads at once, if it has several texts; 0 means all."""

    @property
    def context_tokens(self) -> int:
        """Context that question and answer need."""
        return (self.tokens_at_once or self.tokens_in) + self.tokens_out


_DECODER = msgspec.msgpack.Decoder(PacketIntent)
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def encode_intent(intent: PacketIntent) -> bytes:
    """Encode an intent; equal intents give equal bytes. Raises `Corrupt` for one that no reader
    would accept."""
    # Decoding it turns whole numbers in float fields into floats.
    return _ENCODER.encode(decode_intent(_ENCODER.encode(intent)))


def decode_intent(wire: bytes) -> PacketIntent:
    """Raises `Corrupt` naming the field."""
    return decoded(wire, _DECODER, "intent", MOST_INTENT_BYTES)
