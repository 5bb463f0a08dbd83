"""The ledger's invariants, checked entry by entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from daitn.objects.accounts import LedgerLine, chained_bytes
from daitn.objects.audit import START
from daitn.objects.wire import canonical

__all__ = ["Checker"]

_MOST_PROBLEMS = 20


class Checker:
    """Takes a ledger's lines from the first one on, and reports what is wrong. That every entry
    sums to zero is checked when it is read."""

    def __init__(self) -> None:
        self._number = 0
        self._digest = START
        self._causes: set[str] = set()
        self._sums: Counter[str] = Counter()
        self._problems: list[str] = []

    def take(self, line: LedgerLine, written: bytes = b"") -> None:
        """The next line. `written`: its entry as it was received, if a later release may have
        written it."""
        if line.number != self._number + 1:
            self._problem(f"entry {self._number + 1} is missing")
        if line.digest != chained_bytes(self._digest, written or canonical(line.entry)):
            self._problem(f"entry {line.number} is not as it was written, or one before it is not")
        if line.entry.cause in self._causes:
            self._problem(f"entry {line.number} posts {line.entry.cause} a second time")
        self._number, self._digest = line.number, line.digest
        self._causes.add(line.entry.cause)
        for one in line.entry.postings:
            self._sums[one.account] += one.micro_usd

    def ended(self, balances: Mapping[str, int] | None = None) -> tuple[str, ...]:
        """Remaining problems after all lines. `balances`: as stored by account; `None` means they
        are not compared."""
        if balances is None:
            balances = self._sums
        for account in sorted(self._sums.keys() | balances.keys()):
            kept, summed = balances.get(account, 0), self._sums[account]
            if kept != summed:
                self._problem(f"{account} has {kept} micro-USD, and its entries sum to {summed}")
        return tuple(self._problems[:_MOST_PROBLEMS])

    def _problem(self, what: str) -> None:
        self._problems.append(what)
