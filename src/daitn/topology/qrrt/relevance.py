"""QS-QRRT: the part of a QRRT that matters to one query (paper, section IV).

Rows are annotated with what is expected of them for this query: accuracy on its topic, time and
cost, and the path there. `daitn.topology.qrrt.filters` holds them against its hard constraints.
Everything is computed for all rows at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daitn.objects.queries import AUTO, QueryIntent, Trust
from daitn.topology.qrrt.accuracy import accuracy_on, known_on
from daitn.topology.qrrt.snapshot import Accuracy, Floats, Paths, Qrrt

__all__ = ["QsQrrt", "relevant_to"]

_NUMBERS = "numbers"
_NO_ROWS = np.zeros(0, np.intp)


class QsQrrt:
    """One query's view of a QRRT; not to be changed. Arrays are of `rows`' length."""

    __slots__ = (
        "cost_usd",
        "excluded",
        "first_token_s",
        "in_flight",
        "intent",
        "load",
        "now_s",
        "paths",
        "rows",
        "rtt_s",
        "seconds",
        "service_s",
        "snapshot",
        "wait_s",
    )

    def __init__(
        self,
        snapshot: Qrrt,
        intent: QueryIntent,
        paths: Paths,
        rows: slice | NDArray[np.intp],
        in_flight: Floats,
        now_s: float,
        excluded: tuple[int, ...],
    ) -> None:
        """`rows`: of the wanted model, or all. `in_flight`: see `relevant_to`."""
        self.snapshot = snapshot
        self.intent = intent
        self.paths = paths
        self.rows = rows
        self.in_flight = in_flight
        self.now_s = now_s
        self.excluded = excluded
        columns = snapshot.columns
        first_token_s, slots = columns.first_token_s[rows], columns.slots[rows]
        self.rtt_s: Floats = paths.rtt_s[rows]
        self.load: Floats = np.maximum(columns.in_flight[rows], in_flight[rows])
        """Queries there: as many as the facility last said, or as this gateway reckons."""
        self.service_s: Floats = columns.per_token_s[rows] * intent.tokens_out + first_token_s
        """From a slot to the end of the answer."""
        ahead = np.maximum(self.load + 1.0 - slots, 0.0)
        self.wait_s: Floats = ahead * self.service_s / slots
        """For a slot: those that are ahead, over the rate at which slots become free."""
        begun_s = self.rtt_s + self.wait_s
        self.first_token_s: Floats = begun_s + first_token_s
        """From the gateway's decision to the first piece of the answer."""
        self.seconds: Floats = begun_s + self.service_s
        """From the gateway's decision to the end of the answer."""
        self.cost_usd: Floats = (
            columns.price_in[rows] * intent.tokens_in + columns.price_out[rows] * intent.tokens_out
        )

    @property
    def numbers(self) -> NDArray[np.intp]:
        """The rows by their numbers in the snapshot."""
        memo = self.snapshot.memo
        if _NUMBERS not in memo:
            memo[_NUMBERS] = np.arange(len(self.snapshot.rows))
        numbers: NDArray[np.intp] = memo[_NUMBERS][self.rows]
        return numbers

    def accuracy(self, least: Trust) -> Accuracy:
        """On the query's topic, where it is known with trust of at least `least`."""
        known, rows = accuracy_on(self.snapshot, self.intent.topic, least), self.rows
        return Accuracy(
            known.value[rows], known.standard_error[rows], known.trust[rows], known.at_s[rows]
        )

    @property
    def known_accuracy(self) -> Floats:
        """On the query's topic, 0 where it is not known with the trust that the query wishes."""
        return known_on(self.snapshot, self.intent.topic, self.intent.wishes.trust)[self.rows]


def relevant_to(
    snapshot: Qrrt,
    intent: QueryIntent,
    paths: Paths,
    in_flight: Floats,
    now_s: float,
    excluded: tuple[int, ...] = (),
) -> QsQrrt:
    """Cut the topology for one query. `in_flight` is per row of the snapshot; `excluded` are rows
    that were tried for it."""
    rows: slice | NDArray[np.intp] = slice(None)
    if intent.site is not None:
        row = snapshot.row_of.get(f"{intent.model}@{intent.site}")
        rows = _NO_ROWS if row is None else np.array([row], np.intp)
    elif intent.model != AUTO:
        rows = snapshot.rows_of.get(intent.model, _NO_ROWS)
    return QsQrrt(snapshot, intent, paths, rows, in_flight, now_s, excluded)
