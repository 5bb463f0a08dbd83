"""How the latest queries were served, and what the latest decisions rested on."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Mapping
from typing import NamedTuple

from daitn.control.queries.context import QueryContext
from daitn.control.queries.engine import Qirce
from daitn.objects.decisions import Decision
from daitn.objects.errors import NotFound
from daitn.objects.queries import QueryRecord

__all__ = ["QueryLog", "RecordedDraws"]

MOST_RECORDS = 4096
MOST_DECISIONS = 512
MOST_CELLS = 1 << 23
"""Numbers that kept decisions may hold, 64 MB of them: a topology of 100,000 rows is kept a few
times, one of 1,000 rows as often as `MOST_DECISIONS` says."""
_WORD = (1 << 64) - 1
_COLUMNS = 8
"""That may be another's in each decision: what is measured of rows, and this gateway's load."""


class RecordedDraws:
    """Draws from a seed, for a decision that needs one or none: SplitMix64 of Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Setting up
    `random.Random` takes longer than many a query's other steps."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed

    def random(self) -> float:
        """Uniform in [0, 1)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        mixed = ((self._state ^ (self._state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
        return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53)


class _Decided(NamedTuple):
    id: str
    context: QueryContext
    seed: int


class QueryLog:
    """Rings of bounded size; what falls out is forgotten."""

    def __init__(self, qirce: Qirce) -> None:
        self._qirce = qirce
        self._records: deque[QueryRecord] = deque(maxlen=MOST_RECORDS)
        self._decisions: deque[_Decided] = deque()
        self._row_of: Mapping[str, int] = {}
        self._most = MOST_DECISIONS

    def decided(self, id_: str, context: QueryContext, seed: int) -> None:
        """A query is decided on this context, with draws from this seed."""
        self._decisions.append(_Decided(id_, context, seed))
        if context.snapshot.row_of is not self._row_of:
            self._row_of = context.snapshot.row_of
            cells = _COLUMNS * max(1, len(context.snapshot.rows))
            self._most = max(1, min(MOST_DECISIONS, MOST_CELLS // cells))
        while len(self._decisions) > self._most:
            self._decisions.popleft()

    def ended(self, record: QueryRecord) -> None:
        self._records.append(record)

    def latest(
        self, limit: int, owner: str | None = None, without: Collection[str] = ()
    ) -> tuple[QueryRecord, ...]:
        """Newest first: of one owner, or of all but some."""
        found = (
            record
            for record in reversed(self._records)
            if (record.owner == owner if owner is not None else record.owner not in without)
        )
        return tuple(itertools.islice(found, max(0, limit)))

    def explain(self, id_: str) -> tuple[QueryRecord, Decision]:
        """How a query was served, and why so: the same decision again, with terms and rejections.

        Raises `NotFound` for one that ended too long ago, or not here.
        """
        record = next((record for record in reversed(self._records) if record.id == id_), None)
        if record is not None and record.object_id:
            raise NotFound(
                f"query {id_} found its own way: no gateway decided on it",
                field="id",
                fix=f"daitn trace {record.object_id} --site {id_.partition(':')[0]}",
            )
        known = next((known for known in reversed(self._decisions) if known.id == id_), None)
        if record is None or known is None:
            raise NotFound(
                f"query {id_} is not among the latest that ended at this gateway",
                field="id",
                fix="take an id from `daitn get queries`",
            )
        return record, self._qirce.explain(known.context, RecordedDraws(known.seed))
