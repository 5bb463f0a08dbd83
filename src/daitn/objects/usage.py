"""What was asked and answered, as gateways and facilities state it to a control centre.

A statement is cumulative: it says how much there was since its series began. So one that is lost
loses nothing, and one that arrives twice changes nothing.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from blake3 import blake3

from daitn.objects.accounts import MOST
from daitn.objects.identifiers import Digest, OwnerId, SiteId, Word
from daitn.objects.moments import Moment
from daitn.objects.wire import canonical

__all__ = [
    "MOST_ROWS",
    "Count",
    "Hosted",
    "SignedUsage",
    "UsageCompared",
    "UsageKey",
    "UsageList",
    "UsageReceipt",
    "UsageRow",
    "UsageSide",
    "UsageStatement",
]

MOST_ROWS = 1000
"""In one statement; what else has changed is in the next."""

Whole = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Price = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]


class UsageSide(enum.StrEnum):
    """Who states it."""

    GATEWAY = "gateway"
    """For what owners asked here and pay."""
    FACILITY = "facility"
    """For what gateways were answered here: it is compared, and nobody pays by it."""


class UsageKey(msgspec.Struct, frozen=True):
    """What is counted together."""

    owner: OwnerId
    """Who asked."""
    model_owner: OwnerId
    model: Word
    """Its name; `*`: several, as too many were asked to count each."""
    peer: SiteId
    """Of a gateway: the facility that answered. Of a facility: the gateway that asked."""
    price_in: Price
    """Price in USD of 1,000 tokens read; next: of those written."""
    price_out: Price


class Count(msgspec.Struct, frozen=True):
    """How much."""

    answers: Whole = 0
    tokens_in: Whole = 0
    tokens_out: Whole = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            min(MOST, self.answers + other.answers),
            min(MOST, self.tokens_in + other.tokens_in),
            min(MOST, self.tokens_out + other.tokens_out),
        )

    def less(self, other: Count) -> Count | None:
        """What came since `other`; none if that is more than this in anything."""
        parts = (
            self.answers - other.answers,
            self.tokens_in - other.tokens_in,
            self.tokens_out - other.tokens_out,
        )
        return Count(*parts) if min(parts) >= 0 else None


class UsageRow(msgspec.Struct, frozen=True):
    """One kind of answers since the series began."""

    key: UsageKey
    count: Count


class Hosted(msgspec.Struct, frozen=True):
    """How long a facility has hosted a model for its owner, since the series began."""

    owner: OwnerId
    model: Word
    price_usd_per_hour: Price
    milliseconds: Whole

    @property
    def key(self) -> tuple[str, str, float]:
        """What it is the only one of."""
        return (self.owner, self.model, self.price_usd_per_hour)


class UsageStatement(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway or facility states: all that changed since a control centre last acknowledged
    it, each since the series began."""

    site: SiteId
    side: UsageSide
    series: Annotated[int, msgspec.Meta(ge=1)]
    """A site that has lost its counts begins a later one."""
    number: Annotated[int, msgspec.Meta(ge=1)]
    """Within the series; a later statement has a higher one."""
    at_s: Moment
    rows: Annotated[tuple[UsageRow, ...], msgspec.Meta(max_length=MOST_ROWS)] = ()
    hosted: Annotated[tuple[Hosted, ...], msgspec.Meta(max_length=MOST_ROWS)] = ()

    @property
    def digest(self) -> Digest:
        """BLAKE3 of its canonical form."""
        return Digest(blake3(canonical(self)).hexdigest())


class SignedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A statement as it is sent and stored."""

    statement: UsageStatement
    signature: Word
    """Of the site, over its canonical form."""


class UsageReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The latest statement of a site's side that is in the ledger."""

    series: int
    number: int
    digest: Digest
    """Of that statement."""


class UsageCompared(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway and a facility state about the same answers."""

    gateway: SiteId
    facility: SiteId
    owner: OwnerId
    model: Word
    """`owner/name`"""
    by_gateway: Count
    by_facility: Count | None = None
    """None: the facility has stated nothing yet."""

    @property
    def agrees(self) -> bool:
        """Whether both count as many answers. Tokens of a stream whose server does not tell them
        are counted in two ways."""
        return self.by_facility is None or self.by_facility.answers == self.by_gateway.answers


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of all answers, by gateway, facility, owner and model."""

    compared: tuple[UsageCompared, ...]
