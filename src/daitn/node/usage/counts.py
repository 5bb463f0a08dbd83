"""Counts of a gateway or facility: per kind of answers, and per key with a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from daitn.node.usage.log import CountLog
from daitn.node.usage.shared_keys import SharedKeys
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import SiteId
from daitn.objects.usage import (
    MOST_ROWS,
    Count,
    Hosted,
    KeySpent,
    UsageKey,
    UsageReceipt,
    UsageRow,
    UsageSide,
    UsageStatement,
)

__all__ = ["UsageCounts", "UsageRecord"]

log = logging.getLogger(__name__)

MOST_KINDS = 4096
"""Limit on kinds of answers counted separately; beyond it, models of one owner at one site and
price count together. When all is acknowledged, a new series begins."""
MOST_KEYS = 10_000
"""Limit on keys with limits that are remembered at a time."""


class UsageRecord(msgspec.Struct, frozen=True, array_like=True):
    """One answer, or the hosting of a model for a while."""

    key: UsageKey | None
    count: Count = Count()
    api_key: str = ""
    """The API key of the request, as the digest of its secret, if that has a limit."""
    nano_usd: int = 0
    """What that key spends on it."""
    until_s: float = 0.0
    """When that key expires."""
    at_s: float = 0.0
    """Seconds since the epoch, by the wall clock."""
    hosted: Hosted | None = None
    """`milliseconds`: since the last record."""


class _State(msgspec.Struct):
    series: int = 0
    number: int = 0
    rows: list[UsageRow] = []
    unsaid: list[UsageKey] = []
    hosted: list[Hosted] = []
    keys: dict[str, KeySpent] = {}


class UsageCounts:
    """Counts answers, and makes statements of the counts. All methods but `keep` belong to the
    event loop."""

    def __init__(
        self,
        folder: Path,
        site: SiteId,
        side: UsageSide,
        wall_s: Callable[[], float],
        every_s: float = 60.0,
    ) -> None:
        """`every_s`: interval between statements."""
        self.shared = SharedKeys(every_s, time.monotonic)
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
        self._unstated = dict.fromkeys(state.unsaid)
        self._hosted = {one.key: one for one in state.hosted}
        self._hosted_stated: dict[tuple[str, str, float], int] = {}
        self._keys = dict(state.keys)
        self._stated: dict[int, tuple[UsageRow, ...]] = {}
        """Unacknowledged statements, by number."""
        for record in since:
            self._take(record)

    def count(self, record: UsageRecord) -> None:
        """Count an answer. The count survives the process."""
        self._log.append(self._take(record))

    def spent(self, api_key: str, wall_s: float) -> KeySpent:
        """Spending of a key here."""
        return self._keys.get(api_key, KeySpent()).at(wall_s)

    def begin_statement(self) -> tuple[UsageStatement, _State, int]:
        """The next statement, and the counts that must be stored before it is sent; see `keep`."""
        if len(self._rows) > MOST_KINDS and not self._unstated:
            self._begin_series(self._series + 1)
        self._number += 1
        stated = [UsageRow(key, self._rows[key]) for key in list(self._unstated)[:MOST_ROWS]]
        self._stated = {self._number: tuple(stated)}
        hosted = [
            one
            for key, one in self._hosted.items()
            if one.milliseconds > self._hosted_stated.get(key, 0)
        ]
        statement = UsageStatement(
            site=self._site,
            side=self._side,
            series=self._series,
            number=self._number,
            at_s=self._wall_s(),
            rows=tuple(stated),
            hosted=tuple(hosted[:MOST_ROWS]),
        )
        now_s = self._wall_s()
        self._keys = {key: one for key, one in self._keys.items() if one.until_s > now_s}
        state = _State(
            self._series,
            self._number,
            [UsageRow(key, count) for key, count in self._rows.items()],
            list(self._unstated),
            list(self._hosted.values()),
            dict(self._keys),
        )
        return statement, state, self._log.begin()

    def keep(self, state: _State, generation: int) -> None:
        """Store counts on disk, from any thread. Raises `StorageFull`."""
        self._log.keep(state, generation)

    def acknowledged(self, statement: UsageStatement, receipt: UsageReceipt) -> None:
        """A control centre has a statement. If it is of a later series, from another life of this
        site, then all goes into a further series. If it is another one of this series, as after
        restoring a backup, counting starts over."""
        if receipt.series > statement.series:
            self._series, self._number = receipt.series + 1, 0
            self._unstated = dict.fromkeys(self._rows)
            self._hosted_stated.clear()
            return
        if receipt.digest != statement.digest:
            self.refused()
            return
        for row in self._stated.pop(statement.number, ()):
            if self._rows.get(row.key) == row.count:
                self._unstated.pop(row.key, None)
        for one in statement.hosted:
            self._hosted_stated[one.key] = one.milliseconds

    def refused(self) -> None:
        """A control centre knows more of this series than this site, which has lost counts, for
        instance by restoring a backup. From now on, a new series counts."""
        log.error("the control centre knows more of what was counted here: counting begins anew")
        self._begin_series(self._series + 1)

    def close(self) -> None:
        self._log.close()

    @property
    def is_stated(self) -> bool:
        """Whether everything counted is acknowledged."""
        return not self._unstated and all(
            self._hosted_stated.get(key, 0) >= one.milliseconds for key, one in self._hosted.items()
        )

    def _begin_series(self, series: int) -> None:
        self._series, self._number = max(series, int(self._wall_s() * 1e6)), 0
        self._rows.clear()
        self._unstated.clear()
        self._hosted.clear()
        self._hosted_stated.clear()

    def _take(self, record: UsageRecord) -> UsageRecord:
        key = record.key
        if key is not None:
            if key not in self._rows and len(self._rows) >= MOST_KINDS:
                key = msgspec.structs.replace(key, model="*")
            self._rows[key] = self._rows.get(key, Count()) + record.count
            self._unstated[key] = None
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
