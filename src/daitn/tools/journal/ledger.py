"""The ledger's tables: entries in a chain of digests, each once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from daitn.objects.accounts import LedgerEntry, LedgerLine, LedgerQuestion, chained
from daitn.objects.audit import START
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest
from daitn.objects.wire import canonical, decode
from daitn.tools.journal.tables import LEDGER, POSTINGS

__all__ = ["balances", "head", "lines", "post", "posted"]

_AT_ONCE = 500
"""Values in one statement: SQLite allows some thousands."""


def post(connection: sa.Connection, entries: Sequence[LedgerEntry]) -> None:
    """Append entries except those whose cause exists. Two writers cannot both add the same number,
    nor the same cause."""
    new = _unposted(connection, entries)
    if not new:
        return
    last = head(connection)
    before, digest = (last.number, last.digest) if last else (0, START)
    rows: list[dict[str, Any]] = []
    postings: list[dict[str, Any]] = []
    for number, entry in enumerate(new, before + 1):
        digest = chained(digest, entry)
        rows.append(
            {
                "number": number,
                "cause": entry.cause,
                "job": entry.job,
                "at_s": entry.at_s,
                "digest": digest,
                "entry": canonical(entry),
            }
        )
        postings += [
            {"number": number, "account": one.account, "micro_usd": one.micro_usd}
            for one in entry.postings
        ]
    connection.execute(sa.insert(LEDGER), rows)
    connection.execute(sa.insert(POSTINGS), postings)


def _unposted(connection: sa.Connection, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    by_cause = {entry.cause: entry for entry in reversed(entries)}
    causes = list(by_cause)
    for at in range(0, len(causes), _AT_ONCE):
        query = sa.select(LEDGER.c.cause).where(LEDGER.c.cause.in_(causes[at : at + _AT_ONCE]))
        for known in connection.scalars(query):
            del by_cause[known]
    return list(reversed(by_cause.values()))


def head(connection: sa.Connection) -> LedgerLine | None:
    """The latest entry."""
    query = sa.select(LEDGER).order_by(LEDGER.c.number.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _line(row)


def lines(connection: sa.Connection, question: LedgerQuestion) -> tuple[LedgerLine, ...]:
    """Entries, oldest first."""
    query = (
        sa.select(LEDGER)
        .where(
            LEDGER.c.number > question.after,
            LEDGER.c.at_s >= question.from_s,
            LEDGER.c.at_s < question.to_s,
        )
        .order_by(LEDGER.c.number)
        .limit(question.limit)
    )
    if question.accounts is not None:
        of = sa.select(POSTINGS.c.number).where(POSTINGS.c.account.in_(question.accounts))
        query = query.where(LEDGER.c.number.in_(of))
    return tuple(map(_line, connection.execute(query)))


def balances(connection: sa.Connection) -> dict[str, int]:
    """Every account's balance."""
    query = sa.select(POSTINGS.c.account, sa.func.sum(POSTINGS.c.micro_usd)).group_by(
        POSTINGS.c.account
    )
    return dict(sorted((account, int(total)) for account, total in connection.execute(query)))


def posted(connection: sa.Connection) -> dict[str, int]:
    """Number of entries of each job."""
    query = (
        sa.select(LEDGER.c.job, sa.func.count()).where(LEDGER.c.job != "").group_by(LEDGER.c.job)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _line(row: Any) -> LedgerLine:
    try:
        entry = decode(row.entry, LedgerEntry)
    except Corrupt as error:
        raise Corrupt(
            f"the ledger's entry {row.number} is damaged: {error.problem}",
            field="database",
            fix="restore the latest backup of the control centre in which the ledger is whole",
        ) from error
    return LedgerLine(number=row.number, entry=entry, digest=Digest(row.digest))
