"""Usage statements of gateways and facilities for a control centre.

A statement is cumulative: it says how much there was since its series began. So one that is lost
loses nothing, and one that arrives twice changes nothing.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from daitn.objects.accounts import MOST, Whole
from daitn.objects.bounds import Price
from daitn.objects.digests import digest_of
from daitn.objects.identifiers import Digest, OwnerId, SiteId, Word
from daitn.objects.moments import DAY_S, Moment
from daitn.objects.wire import canonical

__all__ = [
    "FREE",
    "MOST_ROWS",
    "Count",
    "Hosted",
    "KeyRow",
    "KeySpent",
    "Prices",
    "SignedUsage",
    "UsageCompared",
    "UsageKey",
    "UsageList",
    "UsageReceipt",
    "UsageRow",
    "UsageSide",
    "UsageStatement",
]

Prices = tuple[Price, Price]
"""In USD per 1,000 tokens: read, written."""
FREE: Prices = (0.0, 0.0)

Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
"""A series begins with the microseconds since the epoch."""

MOST_ROWS = 1000
"""Rows of one statement; further changes are in the next."""


class UsageSide(enum.StrEnum):
    """The side that reports."""

    GATEWAY = "gateway"
    """Owners' queries here, for which they pay."""
    FACILITY = "facility"
    """Answers to gateways here: only compared, not paid for."""


class UsageKey(msgspec.Struct, frozen=True):
    """What is counted together."""

    owner: OwnerId
    """Owner of the queries."""
    model_owner: OwnerId
    model: Word
    """Its name; `*` means several, as there were too many to count separately."""
    peer: SiteId
    """For a gateway: the facility that answered. For a facility: the gateway that queried it."""
    price_in: Price
    """Price in USD of 1,000 tokens read; next: of those written."""
    price_out: Price


class Count(msgspec.Struct, frozen=True):
    """The counted amounts."""

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
        """The difference from `other`; none if that is larger in anything."""
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
        """Its unique key."""
        return (self.owner, self.model, self.price_usd_per_hour)


class KeySpent(msgspec.Struct, frozen=True):
    """Spending of a key, in nano-USD."""

    day: Whole = 0
    """Days since the epoch, in UTC; it never decreases."""
    month: Whole = 0
    of_day: Whole = 0
    of_month: Whole = 0
    total: Whole = 0
    until_s: Moment = 0.0
    """When the key expires, in seconds since the epoch."""

    def at(self, wall_s: float) -> KeySpent:
        """The same at a later time: a new day or month begins at zero."""
        day, month = int(wall_s // DAY_S), _month(wall_s)
        now = self
        if day > self.day:
            now = msgspec.structs.replace(now, day=day, of_day=0)
        if month > self.month:
            now = msgspec.structs.replace(now, month=month, of_month=0)
        return now

    def plus(self, nano_usd: int, wall_s: float, until_s: float) -> KeySpent:
        """The spending after this additional amount."""
        now = self.at(wall_s)
        return KeySpent(
            now.day,
            now.month,
            now.of_day + nano_usd,
            now.of_month + nano_usd,
            now.total + nano_usd,
            until_s,
        )

    def __add__(self, other: KeySpent) -> KeySpent:
        """The sum of both, with the same day and month."""
        return KeySpent(
            max(self.day, other.day),
            max(self.month, other.month),
            min(MOST, self.of_day + other.of_day),
            min(MOST, self.of_month + other.of_month),
            min(MOST, self.total + other.total),
            max(self.until_s, other.until_s),
        )


class KeyRow(msgspec.Struct, frozen=True):
    """Spending of one key."""

    key: Annotated[str, msgspec.Meta(max_length=64)]
    """Digest of its secret."""
    spent: KeySpent


class UsageStatement(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a gateway or facility: all counts that changed since a control centre last
    acknowledged it, each since the series began."""

    site: SiteId
    side: UsageSide
    series: Number
    """Increases when a site has lost its counts."""
    number: Number
    """Within the series; increases with each statement."""
    at_s: Moment
    rows: Annotated[tuple[UsageRow, ...], msgspec.Meta(max_length=MOST_ROWS)] = ()
    hosted: Annotated[tuple[Hosted, ...], msgspec.Meta(max_length=MOST_ROWS)] = ()

    @property
    def digest(self) -> Digest:
        """BLAKE3 of its canonical form, which its site signs."""
        return digest_of(canonical(self))


class SignedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A statement as sent and stored."""

    statement: UsageStatement
    signature: Word
    """The site's signature over its canonical form."""
    keys: Annotated[tuple[KeyRow, ...], msgspec.Meta(max_length=MOST_ROWS)] = ()
    """For a gateway: keys that other gateways accept too and that were used here lately, each with
    its total spending here. Not part of the statement: it is not an entry of the ledger and is not
    stored."""


class UsageReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The latest statement of a site's side that is in the ledger."""

    series: Number
    number: Number
    digest: Digest
    """Digest of that statement."""
    keys: tuple[KeyRow, ...] = ()
    """For the keys that came with it: what each has spent at all other gateways."""


class UsageCompared(msgspec.Struct, frozen=True, kw_only=True):
    """The reports of a gateway and a facility on the same answers."""

    gateway: SiteId
    facility: SiteId
    owner: OwnerId
    model: Word
    """`owner/name`"""
    by_gateway: Count
    by_facility: Count | None = None
    """Absent means the facility has not reported yet."""
    prices_by_gateway: Prices = FREE
    """The highest prices in USD that the gateway reported, of 1,000 tokens read and written."""
    prices_by_facility: Prices = FREE
    """The highest prices that the facility reported."""

    @property
    def agrees(self) -> bool:
        """Whether the facility confirms as many answers as the gateway charged, and their price.
        Tokens of a stream whose server does not report them are counted in two ways."""
        return self.uncharged >= 0 and not self.overcharges

    @property
    def uncharged(self) -> int:
        """How many answers the facility counts that the gateway did not charge: it had asked
        another facility too, it was killed, or it withholds them. Negative if it charged more."""
        if self.by_facility is None:
            return 0
        return self.by_facility.answers - self.by_gateway.answers

    @property
    def overcharges(self) -> bool:
        """Whether the gateway reported a higher price than the facility."""
        if self.by_facility is None or not self.by_facility.answers:
            return False
        stated = zip(self.prices_by_gateway, self.prices_by_facility, strict=True)
        return any(asked > known for asked, known in stated)


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of all answers, by gateway, facility, owner and model."""

    compared: tuple[UsageCompared, ...]


def _month(wall_s: float) -> int:
    at = datetime.fromtimestamp(wall_s, UTC)
    return at.year * 12 + at.month
