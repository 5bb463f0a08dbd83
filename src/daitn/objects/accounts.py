"""Accounts: who owes whom how much, and for what.

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
    "Whole",
    "chained",
    "chained_bytes",
    "facility_account",
    "gateway_account",
    "owner_account",
    "site_account",
]

MICROS = 1_000_000
"""Micro-USD in a US dollar."""
MOST = 10**15
"""Maximum of any amount in one entry: a billion US dollars. A larger amount is a mistake or a lie
of the one who reports it, and counts as this much, so that sums stay within 64 bits."""
MOST_LINES = 1000
"""Entries in one answer."""

Amount = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Account = Annotated[Line, msgspec.Meta(max_length=220)]

NETWORK = "network"
"""Holds what an owner has set aside for data owners, until it is divided."""


def owner_account(owner: str) -> str:
    """Account of a model owner, who pays for work and answers, and earns from answers of its
    models.

    `owner/-`: nobody said who asked."""
    return f"owner/{owner or '-'}"


def site_account(site: str) -> str:
    """Account of a site, for its data, training, merging and measuring."""
    return f"site/{site}"


def facility_account(site: str) -> str:
    """Account of a site's facility, for hosting."""
    return f"facility/{site}"


def gateway_account(site: str) -> str:
    """Account of a site's gateway, for what it passed on."""
    return f"gateway/{site}"


class EntryKind(enum.StrEnum):
    """What an entry is for."""

    VISIT = "visit"
    """A model was trained at a site: its owner pays for the data."""
    MERGE = "merge"
    """A site merged models."""
    MEASUREMENT = "measurement"
    """A verification unit measured a model."""
    POOL = "pool"
    """An owner sets money aside to share among data owners."""
    CREDITS = "credits"
    """A job has ended: its pool is divided by each data set's contribution."""
    ANSWERS = "answers"
    """Answers of a deployment to an owner's queries at one gateway."""
    HOSTING = "hosting"
    """A facility hosted a model for its owner."""


class Quantities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used, in whole units."""

    compute_ms: Whole = 0
    """Time of training, merging or measuring only."""
    bytes_moved: Whole = 0
    """Transferred to the site that did the work."""
    examples: Whole = 0
    items: Whole = 0
    """Items of a test set."""
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
    """What the account gains; negative if it pays. 0 means it took part."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one fact cost whom. Its postings are on different accounts and sum to zero."""

    cause: Annotated[Line, msgspec.Meta(min_length=1, max_length=1500)]
    """Names the fact; unique."""
    at_s: float
    """When the control centre learned of it, seconds since the epoch."""
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
            raise ValueError("postings: an account occurs twice")

    def on(self, accounts: Iterable[str]) -> int:
        """Sum of the postings on these accounts."""
        wanted = frozenset(accounts)
        return sum(one.micro_usd for one in self.postings if one.account in wanted)


def chained(previous: Digest, entry: LedgerEntry) -> Digest:
    """The digest of an entry that follows the one with digest `previous`; it commits to all earlier
    ones, as in an audit log (`daitn.objects.audit`)."""
    return chained_bytes(previous, canonical(entry))


def chained_bytes(previous: Digest, entry: bytes) -> Digest:
    """Likewise, of an entry in its canonical form."""
    return next_digest(previous or START, blake3(entry).digest())


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in its place in the ledger."""

    number: int
    """Counts from 1."""
    entry: LedgerEntry
    digest: Digest
    """See `chained`."""


class LedgerQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Selects entries: those with a posting on one of some accounts, within a period."""

    accounts: tuple[Account, ...] | None = None
    """Absent means all."""
    from_s: Moment = 0.0
    to_s: Moment = 1e13
    """End of the period, exclusive."""
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of the last entry already known."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LINES)] = MOST_LINES


class AccountQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for accounts, or for the entries of one."""

    account: Account = ""
    """Empty means all visible accounts. A name without a kind: all of an owner's or a site's."""
    from_s: Moment = 0.0
    to_s: Moment = 1e13
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LINES)] = MOST_LINES


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """One account, over the requested period."""

    account: str
    owner: OwnerId = OwnerId("")
    """Its owner, as known to the network; empty means none or unknown."""
    entries: int
    paid_micro_usd: int
    earned_micro_usd: int
    balance_micro_usd: int
    """Earned minus paid."""
    quantities: Quantities
    by_kind: dict[EntryKind, int] = {}
    """The balance by purpose, in micro-USD; kinds that sum to zero are left out."""


class AccountList(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts by name."""

    accounts: tuple[AccountView, ...]


class AccountStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of accounts, oldest first."""

    accounts: tuple[str, ...]
    lines: tuple[LedgerLine, ...]
    next: int | None = None
    """Ask for those `after` this; absent means there are no more."""
    head: CountersignedHead | None = None
    """The ledger's last entry, signed by the control centre; absent means it is empty."""


class Charged(msgspec.Struct, frozen=True):
    """A deployment's answer for which an owner pays, whether it was returned or only compared."""

    model: Word
    """`owner/name`"""
    site: SiteId
    price_in: float
    """Price in USD of 1,000 tokens read, as in its descriptor; next: of those written."""
    price_out: float
    tokens_in: int
    tokens_out: int
