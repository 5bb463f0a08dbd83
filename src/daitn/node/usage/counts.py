"""Counts of a gateway or facility: per kind of answers, and per key with a limit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from daitn.node.usage.log import CountLog
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import SiteId
from daitn.objects.usage import (
    MOST_ROWS,
    Count,
    Hosted,
    UsageKey,
    UsageReceipt,
    UsageRow,
    UsageSide,
    UsageStatement,
)

__all__ = ["KeySpent", "UsageCounts", "UsageRecord"]

log = logging.getLogger(__name__)

MOST_KINDS = 4096
"""Kinds of answers that are told apart; beyond it, models of one owner at one site and price count
together. When all is acknowledged, a new series begins."""
MOST_KEYS = 10_000
"""Keys with limits that are remembered at a time."""
_DAY_S = 86_400


class UsageRecord(msgspec.Struct, frozen=True, array_like=True):
    """One answer, or the hosting of a model for a while."""

    key: UsageKey | None
    count: Count = Count()
    api_key: str = ""
    """With which it was asked, by the digest of its secret, if that has a limit."""
    nano_usd: int = 0
    """What that key spends by it."""
    until_s: float = 0.0
    """When that key ends."""
    at_s: float = 0.0
    """Seconds since the epoch, by the wall clock."""
    hosted: Hosted | None = None
    """`milliseconds`: since the last record."""


class KeySpent(msgspec.Struct, frozen=True):
    """What a key has spent here, in thousand-millionths of a US dollar."""

    day: int = 0
    """Since the epoch, of UTC; it never goes back."""
    month: int = 0
    of_day: int = 0
    of_month: int = 0
    total: int = 0
    until_s: float = 0.0

    def at(self, wall_s: float) -> KeySpent:
        """The same at a later time: a new day or month begins with nothing."""
        day, month = int(wall_s // _DAY_S), _month(wall_s)
        now = self
        if day > self.day:
            now = msgspec.structs.replace(now, day=day, of_day=0)
        if month > self.month:
            now = msgspec.structs.replace(now, month=month, of_month=0)
        return now

    def plus(self, nano_usd: int, wall_s: float, until_s: float) -> KeySpent:
        """After it has spent so much more."""
        now = self.at(wall_s)
        return KeySpent(
            now.day,
            now.month,
            now.of_day + nano_usd,
            now.of_month + nano_usd,
            now.total + nano_usd,
            until_s,
        )


class _State(msgspec.Struct):
    series: int = 0
    number: int = 0
    rows: list[UsageRow] = []
    unsaid: list[UsageKey] = []
    hosted: list[Hosted] = []
    keys: dict[str, KeySpent] = {}


class UsageCounts:
    """Counts what is answered, and makes statements of it. All methods but `keep` belong to the
    event loop."""

    def __init__(
        self, folder: Path, site: SiteId, side: UsageSide, wall_s: Callable[[], float]
    ) -> None:
        self._site, self._side, self._wall_s = site, side, wall_s
        self._log = CountLog(folder, _State, UsageRecord)
        try:
            state, since = self._log.read()
        except Corrupt as error:
            log.error("%s: the counts begin anew: %s", folder, error.problem)
            state, since = None, []
        state = state or _State()
        self._series = state.series or int(wall_s() * 1e6)
        self._number = state.number
        self._rows = {row.key: row.count for row in state.rows}
        self._unsaid = dict.fromkeys(state.unsaid)
        self._hosted = {one.key: one for one in state.hosted}
        self._hosted_said: dict[tuple[str, str, float], int] = {}
        self._keys = dict(state.keys)
        self._said: dict[int, tuple[UsageRow, ...]] = {}
        """Statements that are not acknowledged, by number."""
        for record in since:
            self._take(record)

    def count(self, record: UsageRecord) -> None:
        """Count an answer. It survives the process."""
        self._log.append(self._take(record))

    def spent(self, api_key: str, wall_s: float) -> KeySpent:
        """What a key has spent here."""
        return self._keys.get(api_key, KeySpent()).at(wall_s)

    def begin_statement(self) -> tuple[UsageStatement, _State, int]:
        """The next statement, and the counts that must be kept before it is sent; see `keep`."""
        if len(self._rows) > MOST_KINDS and not self._unsaid:
            self._begin_series(self._series + 1)
        self._number += 1
        said = [UsageRow(key, self._rows[key]) for key in list(self._unsaid)[:MOST_ROWS]]
        self._said = {self._number: tuple(said)}
        hosted = [
            one
            for key, one in self._hosted.items()
            if one.milliseconds > self._hosted_said.get(key, 0)
        ]
        statement = UsageStatement(
            site=self._site,
            side=self._side,
            series=self._series,
            number=self._number,
            at_s=self._wall_s(),
            rows=tuple(said),
            hosted=tuple(hosted[:MOST_ROWS]),
        )
        now_s = self._wall_s()
        self._keys = {key: one for key, one in self._keys.items() if one.until_s > now_s}
        state = _State(
            self._series,
            self._number,
            [UsageRow(key, count) for key, count in self._rows.items()],
            list(self._unsaid),
            list(self._hosted.values()),
            dict(self._keys),
        )
        return statement, state, self._log.begin()

    def keep(self, state: _State, generation: int) -> None:
        """Keep counts on disk, from any thread. Raises `StorageFull`."""
        self._log.keep(state, generation)

    def acknowledged(self, statement: UsageStatement, receipt: UsageReceipt) -> None:
        """A control centre has a statement; or one of a later series, which another life of this
        site made: then all goes into a series after that. Or another one of this series, as after a
        backup was put back: then counting begins anew."""
        if receipt.series > statement.series:
            self._series, self._number = receipt.series + 1, 0
            self._unsaid = dict.fromkeys(self._rows)
            self._hosted_said.clear()
            return
        if receipt.digest != statement.digest:
            self.refused()
            return
        for row in self._said.pop(statement.number, ()):
            if self._rows.get(row.key) == row.count:
                self._unsaid.pop(row.key, None)
        for one in statement.hosted:
            self._hosted_said[one.key] = one.milliseconds

    def refused(self) -> None:
        """A control centre knows more of this series than this site: it has lost counts, for
        instance by a backup that was put back. What comes from now on is a new series."""
        log.error("the control centre knows more of what was counted here: counting begins anew")
        self._begin_series(self._series + 1)

    def close(self) -> None:
        self._log.close()

    @property
    def is_said(self) -> bool:
        """Whether all that was counted is acknowledged."""
        return not self._unsaid and all(
            self._hosted_said.get(key, 0) >= one.milliseconds for key, one in self._hosted.items()
        )

    def _begin_series(self, series: int) -> None:
        self._series, self._number = max(series, int(self._wall_s() * 1e6)), 0
        self._rows.clear()
        self._unsaid.clear()
        self._hosted.clear()
        self._hosted_said.clear()

    def _take(self, record: UsageRecord) -> UsageRecord:
        key = record.key
        if key is not None:
            if key not in self._rows and len(self._rows) >= MOST_KINDS:
                key = msgspec.structs.replace(key, model="*")
            self._rows[key] = self._rows.get(key, Count()) + record.count
            self._unsaid[key] = None
        if record.api_key:
            before = self._keys.pop(record.api_key, KeySpent())
            spent = before.plus(record.nano_usd, record.at_s, record.until_s)
            self._keys[record.api_key] = spent
            if len(self._keys) > MOST_KEYS:
                del self._keys[next(iter(self._keys))]
        if record.hosted is not None:
            at = record.hosted.key
            known = self._hosted.get(at)
            total = record.hosted.milliseconds + (known.milliseconds if known else 0)
            self._hosted[at] = msgspec.structs.replace(record.hosted, milliseconds=total)
        return record


def _month(wall_s: float) -> int:
    at = datetime.fromtimestamp(wall_s, UTC)
    return at.year * 12 + at.month
