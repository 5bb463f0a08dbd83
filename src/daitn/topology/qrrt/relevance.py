"""QS-QRRT: the part of a QRRT that matters to one query (paper, section IV).

Rows are annotated with estimates for this query: accuracy on its topic, time, cost, and the path.
`daitn.topology.qrrt.filters` checks them against its hard constraints. Everything is computed for
all rows at once, and what does not depend on the query only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from daitn.objects.queries import AUTO, QueryIntent, Trust
from daitn.topology.arrays import Floats
from daitn.topology.qrrt.accuracy import accuracy_on, expected_on
from daitn.topology.qrrt.cache import cached
from daitn.topology.qrrt.snapshot import NO_ROWS, Accuracy, Paths, Qrrt, deployment_id

__all__ = ["QsQrrt", "Selected", "relevant_to", "selected_by"]

_MOST_SELECTED = 512


@dataclass(frozen=True, slots=True)
class Selected:
    """The rows that an intent names, with figures from their descriptors.

    Queries share it: do not modify.
    """

    rows: slice | NDArray[np.intp]
    """Those of the requested model, or all."""
    numbers: NDArray[np.intp]
    """Row numbers in the snapshot."""
    slots: Floats
    room: Floats
    """Slots plus queue places."""
    price_in: Floats
    """USD per token."""
    prices_in: bool
    """Whether a prompt costs anything at any row."""
    price_out: Floats
    context_tokens: NDArray[np.int64]
    """Maximum for prompt and answer together."""
    least_context: int
    """Number of tokens that every row can hold."""


def selected_by(snapshot: Qrrt, intent: QueryIntent) -> Selected:
    """The rows that may be relevant. Computed once per model, and per pinned deployment."""
    columns = snapshot.columns
    parts = (
        snapshot.rows_of,
        columns.slots,
        columns.queue,
        columns.price_in,
        columns.price_out,
        columns.context_tokens,
    )
    kept = cached(snapshot.cache, "selected", parts, _MOST_SELECTED)
    kind = intent.model, intent.site
    known: Selected | None = kept.get(kind)
    if known is None:
        known = _selected(snapshot, intent)
        if len(known.numbers):  # Names that match nothing come from strangers.
            kept.put(kind, known)
    return known


def _selected(snapshot: Qrrt, intent: QueryIntent) -> Selected:
    return _selected_rows(snapshot, _named(snapshot, intent))


def _selected_rows(snapshot: Qrrt, rows: slice | NDArray[np.intp]) -> Selected:
    columns = snapshot.columns
    slots, context_tokens = columns.slots[rows], columns.context_tokens[rows]
    price_in = columns.price_in[rows]
    return Selected(
        rows=rows,
        numbers=np.arange(len(snapshot.rows))[rows],
        slots=slots,
        room=slots + columns.queue[rows],
        price_in=price_in,
        prices_in=bool(price_in.any()),
        price_out=columns.price_out[rows],
        context_tokens=context_tokens,
        least_context=int(context_tokens.min()) if len(context_tokens) else 0,
    )


def _named(snapshot: Qrrt, intent: QueryIntent) -> slice | NDArray[np.intp]:
    if intent.site is not None:
        owner, _, name = intent.model.rpartition("/")
        row = snapshot.row_of.get(deployment_id(name, intent.site))
        if row is None or (owner and snapshot.rows[row].key != intent.model):
            return NO_ROWS
        return np.array([row], np.intp)
    if intent.model != AUTO:
        return snapshot.rows_of.get(intent.model, NO_ROWS)
    return slice(None)


class QsQrrt:
    """One query's view of a QRRT; do not modify. Arrays have the length of `rows`."""

    def __init__(
        self,
        snapshot: Qrrt,
        intent: QueryIntent,
        paths: Paths,
        selected: Selected,
        in_flight: Floats,
        now_s: float,
        excluded: tuple[int, ...],
    ) -> None:
        """`in_flight`: see `relevant_to`."""
        self.snapshot = snapshot
        self.intent = intent
        self.paths = paths
        self.selected = selected
        self.in_flight = in_flight
        self.now_s = now_s
        self.excluded = excluded
        columns, rows = snapshot.columns, selected.rows
        self.rows = rows
        self.numbers = selected.numbers
        """Row numbers in the snapshot."""
        self.rtt_s: Floats = paths.rtt_s[rows]
        self.first_piece_s: Floats = columns.first_token_s[rows]
        """From taking a slot to the first piece of the answer."""
        self.per_token_s: Floats = columns.per_token_s[rows]
        self.service_s: Floats = self.per_token_s * intent.timed_tokens + self.first_piece_s
        """From taking a slot to the end of the answer."""
        self.load: Floats = np.maximum(columns.in_flight[rows], in_flight[rows])
        """Queries there: the larger of the facility's last report and this gateway's estimate."""
        self.ahead: Floats = np.maximum(self.load + 1.0 - selected.slots, 0.0)
        """Queries that must finish before this one gets a slot."""
        self.cost_usd: Floats = selected.price_out * intent.priced_tokens
        if selected.prices_in:
            self.cost_usd = selected.price_in * self.tokens_in + self.cost_usd

    @cached_property
    def tokens_in(self) -> Floats | float:
        """Tokens of the prompt, by each row's own rates."""
        intent = self.intent
        if intent.characters is None:
            return float(intent.tokens_in)
        tokens: Floats | float = float(intent.tokens_apart)
        for count, rates in zip(intent.characters, self.snapshot.columns.token_rates, strict=True):
            if count:
                tokens = rates[self.rows] * count + tokens
        return tokens

    @cached_property
    def wait_s(self) -> Floats:
        """Wait for a slot: queries ahead over the rate at which slots become free."""
        return self.ahead * self.service_s / self.selected.slots

    @cached_property
    def first_token_s(self) -> Floats:
        """From the gateway's decision to the first piece of the answer."""
        return self.rtt_s + self.wait_s + self.first_piece_s

    @cached_property
    def seconds(self) -> Floats:
        """From the gateway's decision to the end of the answer."""
        return self.rtt_s + self.wait_s + self.service_s

    def only(self, positions: NDArray[np.intp]) -> QsQrrt:
        """The same view of some of its rows."""
        selected = _selected_rows(self.snapshot, self.numbers[positions])
        return QsQrrt(
            self.snapshot,
            self.intent,
            self.paths,
            selected,
            self.in_flight,
            self.now_s,
            self.excluded,
        )

    def first_token_s_at(self, position: int) -> float:
        """Likewise for one row: a plan needs no more, and most queries set no bound."""
        return float(self._begun_s(position) + self.first_piece_s[position])

    def seconds_at(self, position: int) -> float:
        """Likewise for one row."""
        return float(self._begun_s(position) + self.service_s[position])

    def accuracy(self, least: Trust) -> Accuracy:
        """On the query's topic, if known with trust of at least `least`."""
        known, rows = accuracy_on(self.snapshot, self.intent.topic, least), self.rows
        return Accuracy(
            known.value[rows], known.standard_error[rows], known.trust[rows], known.at_s[rows]
        )

    @property
    def expected_accuracy(self) -> Floats:
        """On the query's topic; that of an unmeasured deployment if unknown at the trust that the
        query requires."""
        trust = self.intent.constraints.trust
        return expected_on(self.snapshot, self.intent.topic, trust)[self.rows]

    def _begun_s(self, position: int) -> np.float64:
        wait_s = self.ahead[position] * self.service_s[position] / self.selected.slots[position]
        begun_s: np.float64 = self.rtt_s[position] + wait_s
        return begun_s


def relevant_to(
    snapshot: Qrrt,
    intent: QueryIntent,
    paths: Paths,
    in_flight: Floats,
    now_s: float,
    excluded: tuple[int, ...] = (),
) -> QsQrrt:
    """Cut the topology for one query.

    `in_flight` is per row of the snapshot; `excluded` are rows already tried for the query.
    """
    selected = selected_by(snapshot, intent)
    return QsQrrt(snapshot, intent, paths, selected, in_flight, now_s, excluded)
