"""Accounts: who owes whom how much, for which fact.

The ledger is double entry: the postings of every entry sum to zero. Money is whole millionths of a
US dollar (micro-USD), and every other quantity is a whole number of its own unit, so sums are exact
in any order. An entry is named by the fact that caused it, and no fact causes two.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated

import msgspec
from blake3 import blake3

from daitn.objects.audit import START, CountersignedHead, next_digest
from daitn.objects.identifiers import Digest, OwnerId, SiteId, Word
from daitn.objects.moments import Moment
from daitn.objects.text import Line
from daitn.objects.wire import canonical

__all__ = [
    "MICROS",
    "MOST",
    "MOST_LINES",
    "NETWORK",
    "AccountList",
    "AccountQuestion",
    "AccountStatement",
    "AccountView",
    "Charged",
    "EntryKind",
    "LedgerEntry",
    "LedgerLine",
    "LedgerQuestion",
    "Posting",
    "Quantities",
    "chained",
    "facility_account",
    "gateway_account",
    "owner_account",
    "site_account",
]

MICROS = 1_000_000
"""Micro-USD in a US dollar."""
MOST = 10**15
"""The most of anything in one entry: a billion US dollars. What is beyond is a mistake or a lie of
whoever states it, and counts as this much, so that sums keep within 64 bits."""
MOST_LINES = 1000
"""Entries in one answer."""

Amount = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Account = Annotated[Line, msgspec.Meta(max_length=220)]

NETWORK = "network"
"""Holds what an owner has set aside for the owners of data, until it is divided."""


def owner_account(owner: str) -> str:
    """Of a model owner, who pays for work and answers and earns by answers of its models.

    `owner/-`: nobody said who asked."""
    return f"owner/{owner or '-'}"


def site_account(site: str) -> str:
    """Of a site, for its data, training, merging and measuring."""
    return f"site/{site}"


def facility_account(site: str) -> str:
    """Of a site's facility, for hosting."""
    return f"facility/{site}"


def gateway_account(site: str) -> str:
    """Of a site's gateway: what it passed on."""
    return f"gateway/{site}"


class EntryKind(enum.StrEnum):
    """What an entry is for."""

    VISIT = "visit"
    """A model was trained at a site: its owner pays the price of the data."""
    MERGE = "merge"
    """A site merged models."""
    MEASUREMENT = "measurement"
    """A verification unit measured a model."""
    POOL = "pool"
    """An owner sets aside what owners of data are to share."""
    CREDITS = "credits"
    """A job has ended: its pool is divided by what each data set brought."""
    ANSWERS = "answers"
    """Answers of a deployment to an owner's queries at one gateway."""
    HOSTING = "hosting"
    """A facility hosted a model for its owner."""


class Quantities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used, in whole units."""

    compute_ms: Whole = 0
    """Time of training, merging or measuring alone."""
    bytes_moved: Whole = 0
    """Transferred to the site that did the work."""
    examples: Whole = 0
    items: Whole = 0
    """Of a test set."""
    micro_epsilon: Whole = 0
    """Privacy budget spent: millionths of the visit's epsilon."""
    answers: Whole = 0
    tokens_in: Whole = 0
    tokens_out: Whole = 0
    hosted_ms: Whole = 0

    def __add__(self, other: Quantities) -> Quantities:
        return Quantities(
            **{
                name: min(MOST, getattr(self, name) + getattr(other, name))
                for name in self.__struct_fields__
            }
        )


class Posting(msgspec.Struct, frozen=True):
    """One side of an entry."""

    account: Account
    micro_usd: Amount
    """What the account gains; negative: what it pays. 0: it took part."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one fact cost whom. Its postings are on different accounts, and sum to zero."""

    cause: Annotated[Line, msgspec.Meta(min_length=1, max_length=1500)]
    """Names the fact; unique."""
    at_s: float
    """When the control centre learned of it, in seconds since the epoch."""
    kind: EntryKind
    postings: Annotated[tuple[Posting, ...], msgspec.Meta(min_length=1)]
    quantities: Quantities = Quantities()
    job: Word = ""
    what: Word = ""
    """The data set, the topic or the model that it is about."""

    def __post_init__(self) -> None:
        if sum(one.micro_usd for one in self.postings) != 0:
            raise ValueError("postings: they do not sum to zero")
        if len({one.account for one in self.postings}) != len(self.postings):
            raise ValueError("postings: an account is there twice")

    def on(self, accounts: Iterable[str]) -> int:
        """What some accounts gain by it together."""
        wanted = frozenset(accounts)
        return sum(one.micro_usd for one in self.postings if one.account in wanted)


def chained(previous: Digest, entry: LedgerEntry) -> Digest:
    """The digest of an entry that follows the one with digest `previous`; it names all before it,
    as in an audit log (`daitn.objects.audit`)."""
    return next_digest(previous or START, blake3(canonical(entry)).digest())


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in its place in the ledger."""

    number: int
    """Counts from 1."""
    entry: LedgerEntry
    digest: Digest
    """See `chained`."""


class LedgerQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries: those with a posting on one of some accounts, within a time."""

    accounts: tuple[Account, ...] | None = None
    """None: all."""
    from_s: Moment = 0.0
    to_s: Moment = 1e13
    """The first moment that is too late."""
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of the last entry that is known already."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LINES)] = MOST_LINES


class AccountQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for accounts, or for the entries of one."""

    account: Account = ""
    """Empty: all that may be seen. A name without a kind: all of an owner's or a site's."""
    from_s: Moment = 0.0
    to_s: Moment = 1e13
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LINES)] = MOST_LINES


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """One account, over the time that was asked for."""

    account: str
    owner: OwnerId = OwnerId("")
    """Whose it is, as the network knows it; empty: nobody's, or unknown."""
    entries: int
    paid_micro_usd: int
    earned_micro_usd: int
    balance_micro_usd: int
    """Earned less paid."""
    quantities: Quantities
    by_kind: dict[EntryKind, int] = {}
    """The balance by what it is for, in micro-USD; kinds that come to nothing are left out."""


class AccountList(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts by name."""

    accounts: tuple[AccountView, ...]


class AccountStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of accounts, oldest first."""

    accounts: tuple[str, ...]
    lines: tuple[LedgerLine, ...]
    next: int | None = None
    """Ask for those `after` this; none: there are no more."""
    head: CountersignedHead | None = None
    """The ledger's last entry, signed by the control centre; none: it is empty."""


class Charged(msgspec.Struct, frozen=True):
    """A deployment's answer that an owner pays for, whether it was given or only compared."""

    model: Word
    """`owner/name`"""
    site: SiteId
    price_in: float
    """Price in USD of 1,000 tokens read, as its descriptor states it; next: of those written."""
    price_out: float
    tokens_in: int
    tokens_out: int
