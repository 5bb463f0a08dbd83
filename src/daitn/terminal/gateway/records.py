"""How the latest queries were served, and what the latest decisions rested on."""

from __future__ import annotations

import random
from collections import OrderedDict, deque

from daitn.control.queries.context import QueryContext
from daitn.control.queries.engine import Qirce
from daitn.objects.decisions import Decision
from daitn.objects.errors import NotFound
from daitn.objects.queries import QueryRecord

__all__ = ["Records"]

MOST_RECORDS = 4096
MOST_DECISIONS = 512
MOST_CELLS = 1 << 23
"""Numbers that kept decisions may hold, 64 MB of them: a topology of 100,000 rows is kept a few
times, one of 1,000 rows as often as `MOST_DECISIONS` says."""
_COLUMNS = 8
"""That may be another's in each decision: what is measured of rows, and this gateway's load."""


class Records:
    """Rings of bounded size; what falls out is forgotten."""

    def __init__(self, qirce: Qirce) -> None:
        self._qirce = qirce
        self._records: deque[QueryRecord] = deque(maxlen=MOST_RECORDS)
        self._decisions: OrderedDict[str, tuple[QueryContext, int]] = OrderedDict()

    def decided(self, id_: str, context: QueryContext, seed: int) -> None:
        """A query is decided on this context, with draws from this seed."""
        self._decisions[id_] = context, seed
        cells = _COLUMNS * max(1, len(context.snapshot.rows))
        most = max(1, min(MOST_DECISIONS, MOST_CELLS // cells))
        while len(self._decisions) > most:
            self._decisions.popitem(last=False)

    def ended(self, record: QueryRecord) -> None:
        self._records.append(record)

    def latest(self, limit: int) -> tuple[QueryRecord, ...]:
        """Newest first."""
        count = max(0, min(limit, len(self._records)))
        return tuple(self._records[-1 - at] for at in range(count))

    def explain(self, id_: str) -> tuple[QueryRecord, Decision]:
        """How a query was served, and why so: the same decision again, with terms and rejections.

        Raises `NotFound` for one that ended too long ago, or not here.
        """
        record = next((record for record in reversed(self._records) if record.id == id_), None)
        known = self._decisions.get(id_)
        if record is None or known is None:
            raise NotFound(
                f"query {id_} is not among the latest that ended at this gateway",
                field="id",
                fix="take an id from `daitn get queries`",
            )
        context, seed = known
        # S311: draws spread load and keep no secret.
        return record, self._qirce.explain(context, random.Random(seed))  # noqa: S311
