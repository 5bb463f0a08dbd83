"""The latest queries, how they were served, and the inputs of their decisions."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Mapping
from typing import NamedTuple

from daitn.control.queries.context import QueryContext
from daitn.control.queries.engine import Qirce
from daitn.objects.decisions import Decision
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.queries import QueryRecord
from daitn.objects.requests import QueryExplained

__all__ = ["QueryLog", "SeededDraws"]

MAX_RECORDS = 4096
MAX_DECISIONS = 512
MAX_CELLS = 1 << 23
"""Limit on numbers in stored decisions, 64 MB of them: a few decisions over 100,000 rows, or
`MAX_DECISIONS` over 1,000."""
_WORD = (1 << 64) - 1
_CHANGING_COLUMNS = 8
"""Columns that may differ between decisions: measurements of rows, and this gateway's load."""


class SeededDraws:
    """Random draws from a seed, for a decision that needs one or none: SplitMix64 of Steele, Lea
    and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Setting up
    `random.Random` takes longer than many other steps of a query."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed

    def random(self) -> float:
        """Uniform in [0, 1)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        mixed = ((self._state ^ (self._state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
        return ((mixed ^ (mixed >> 31)) >> 11) / (1 << 53)


class _LoggedDecision(NamedTuple):
    id: str
    context: QueryContext
    seed: int


class QueryLog:
    """Ring buffers: the oldest entries are dropped."""

    def __init__(self, qirce: Qirce) -> None:
        self._qirce = qirce
        self._records: deque[QueryRecord] = deque(maxlen=MAX_RECORDS)
        self._decisions: deque[_LoggedDecision] = deque()
        self._row_of: Mapping[str, int] = {}
        self._max_decisions = MAX_DECISIONS

    def record_decision(self, id_: str, context: QueryContext, seed: int) -> None:
        """Record the inputs of a decision: its context and the seed of its draws."""
        self._decisions.append(_LoggedDecision(id_, context, seed))
        if context.snapshot.row_of is not self._row_of:
            self._row_of = context.snapshot.row_of
            cells = _CHANGING_COLUMNS * max(1, len(context.snapshot.rows))
            self._max_decisions = max(1, min(MAX_DECISIONS, MAX_CELLS // cells))
        while len(self._decisions) > self._max_decisions:
            self._decisions.popleft()

    def record_query(self, record: QueryRecord) -> None:
        self._records.append(record)

    def latest(
        self,
        limit: int,
        owner: str | None = None,
        without: Collection[str] = (),
        before: tuple[float, str] | None = None,
    ) -> tuple[QueryRecord, ...]:
        """Latest first: those of one owner, or all except some. `before`: only those that come
        after the query with this time and id."""
        matching = (
            record
            for record in reversed(self._records)
            if (record.owner == owner if owner is not None else record.owner not in without)
            and (before is None or (record.asked_at_s, record.id) < before)
        )
        return tuple(heapq.nlargest(max(0, limit), matching, lambda r: (r.asked_at_s, r.id)))

    def explain(self, id_: str) -> QueryExplained:
        """How a query was served, and its decision, recomputed with terms and rejections, or why
        there is none. Raises `NotFound` for a query that is not among the `latest`."""
        record = next((record for record in reversed(self._records) if record.id == id_), None)
        if record is None:
            raise NotFound(
                f"query {id_} is not among the latest that ended at this gateway",
                field="id",
                fix="take an id from `daitn get queries`",
            )
        logged = next((one for one in reversed(self._decisions) if one.id == id_), None)
        if record.object_id:
            trace = f"daitn trace {record.object_id} --site {id_.partition(':')[0]}"
            undecided = f"it was autonomous: no gateway decided on it; see `{trace}`"
        elif logged is None:
            undecided = "it ended before a decision, or newer decisions have taken its place"
        else:
            try:
                decision = self._qirce.explain(logged.context, SeededDraws(logged.seed))
                return QueryExplained(query=record, decision=decision)
            except InvalidInput as error:
                undecided = f"{error.field}: {error.problem}"
        nothing = Decision(
            policy="",
            chosen=None,
            ranking=(),
            rejections=(),
            snapshot_version=0,
            at_s=record.asked_at_s,
        )
        return QueryExplained(query=record, decision=nothing, undecided=undecided)
