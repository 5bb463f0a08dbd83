"""Entries for answers and hosting: what a report adds to the known counts."""

from __future__ import annotations

from fractions import Fraction

import msgspec

from daitn.control.accounting.amounts import exact, micros, transfer
from daitn.objects.accounts import (
    EntryKind,
    LedgerEntry,
    Quantities,
    facility_account,
    gateway_account,
    owner_account,
)
from daitn.objects.errors import InvalidInput
from daitn.objects.grants import full_name
from daitn.objects.identifiers import Digest
from daitn.objects.usage import (
    Count,
    Hosted,
    UsageKey,
    UsageReceipt,
    UsageRow,
    UsageSide,
    UsageStatement,
)

__all__ = ["Stated", "applied", "price_of"]

_HOUR_MS = 3_600_000


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a site's side has reported in its latest series."""

    series: int = 0
    number: int = 0
    digest: Digest = Digest("")
    """Digest of the latest statement."""
    rows: tuple[UsageRow, ...] = ()
    hosted: tuple[Hosted, ...] = ()

    @property
    def receipt(self) -> UsageReceipt:
        return UsageReceipt(series=self.series, number=self.number, digest=self.digest)


def price_of(key: UsageKey, count: Count) -> Fraction:
    """The price of answers, in USD."""
    tokens = count.tokens_in * exact(key.price_in) + count.tokens_out * exact(key.price_out)
    return tokens / 1000


def applied(
    known: Stated, statement: UsageStatement, digest: Digest, at_s: float
) -> tuple[Stated, tuple[LedgerEntry, ...], tuple[UsageRow, ...]]:
    """The known counts after a report, the resulting ledger entries, and the new amounts of each
    kind. `digest`: of the statement as its site signed it.

    A statement that is not newer changes nothing. Raises `InvalidInput` for one that states less
    than its series did before.
    """
    if (statement.series, statement.number) <= (known.series, known.number):
        return known, (), ()
    if statement.series > known.series:
        known = Stated(series=statement.series)
    counts = {row.key: row.count for row in known.rows}
    hosted = {one.key: one for one in known.hosted}
    entries: list[LedgerEntry] = []
    new: list[UsageRow] = []
    for row in statement.rows:
        before = counts.get(row.key, Count())
        more = row.count.less(before)
        if more is None:
            raise _goes_back(statement)
        counts[row.key] = row.count
        if more != Count():
            new.append(UsageRow(row.key, more))
            if statement.side is UsageSide.GATEWAY:
                entries.append(_answers(statement, row.key, before, row.count, more, at_s))
    for one in statement.hosted:
        earlier = hosted.get(one.key)
        before_ms = earlier.milliseconds if earlier else 0
        if one.milliseconds < before_ms:
            raise _goes_back(statement)
        hosted[one.key] = one
        if one.milliseconds > before_ms:
            entries.append(_hosting(statement, one, before_ms, at_s))
    now = Stated(
        series=statement.series,
        number=statement.number,
        digest=digest,
        rows=tuple(UsageRow(key, count) for key, count in counts.items()),
        hosted=tuple(hosted.values()),
    )
    return now, tuple(entries), tuple(new)


def _goes_back(statement: UsageStatement) -> InvalidInput:
    return InvalidInput(
        f"{statement.site} reports less than before",
        field="series",
        fix="start a new series",
    )


def _cause(statement: UsageStatement, *what: object) -> str:
    parts = (statement.side, statement.site, statement.series, statement.number, *what)
    return "/".join(map(str, parts))


def _answers(
    statement: UsageStatement, key: UsageKey, before: Count, now: Count, more: Count, at_s: float
) -> LedgerEntry:
    """The owner's payments to the model's owner, who set the price. Amounts are differences of
    rounded sums, so the total does not depend on how often it is reported."""
    micro_usd = micros(price_of(key, now)) - micros(price_of(key, before))
    prices = (repr(key.price_in), repr(key.price_out))
    return LedgerEntry(
        cause=_cause(statement, key.owner, key.model_owner, key.model, key.peer, *prices),
        at_s=at_s,
        kind=EntryKind.ANSWERS,
        postings=transfer(
            owner_account(key.owner),
            owner_account(key.model_owner),
            micro_usd,
            facility_account(key.peer),
            gateway_account(statement.site),
        ),
        quantities=Quantities(
            answers=more.answers, tokens_in=more.tokens_in, tokens_out=more.tokens_out
        ),
        what=full_name(key.model_owner, key.model)[:200],
    )


def _hosting(statement: UsageStatement, hosted: Hosted, before_ms: int, at_s: float) -> LedgerEntry:
    def cost(milliseconds: int) -> int:
        return micros(exact(hosted.price_usd_per_hour) * Fraction(milliseconds, _HOUR_MS))

    price = repr(hosted.price_usd_per_hour)
    facility = facility_account(statement.site)
    return LedgerEntry(
        cause=_cause(statement, hosted.owner, hosted.model, price),
        at_s=at_s,
        kind=EntryKind.HOSTING,
        postings=transfer(
            owner_account(hosted.owner), facility, cost(hosted.milliseconds) - cost(before_ms)
        ),
        quantities=Quantities(hosted_ms=hosted.milliseconds - before_ms),
        what=full_name(hosted.owner, hosted.model)[:200],
    )
