"""Policies that choose the first row to query and its fallbacks: QIRCE, and others to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from daitn.control.queries.context import QueryContext, QueryPlan, QueryRefusal
from daitn.control.queries.engine import Qirce
from daitn.control.queries.hedging import late_after_s
from daitn.objects.randomness import Rng
from daitn.sim.load import Arrival
from daitn.topology.arrays import Floats
from daitn.topology.qrrt.filters import passing
from daitn.topology.qrrt.relevance import relevant_to

__all__ = [
    "Chooser",
    "Chosen",
    "LeastBusy",
    "QirceChooser",
    "RandomRow",
    "RoundRobin",
    "TwoChoices",
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows in the order in which they are queried; empty means the query is refused."""

    rows: tuple[int, ...]
    late_after_s: Callable[[int], float] | None = None
    """When a row is unusually late, so that a second one is queried; `None` means never."""


class Chooser(Protocol):
    """Chooses rows for one gateway."""

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        """Only an oracle may use what is in `arrival` but not in the context."""
        ...


class QirceChooser:
    """The live code. `listener` receives every decision."""

    def __init__(
        self, listener: Callable[[QueryContext, QueryPlan | QueryRefusal], None] | None = None
    ) -> None:
        self._qirce = Qirce()
        self._listener = listener

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        plan = self._qirce.decide(context, rng)
        if self._listener is not None:
            self._listener(context, plan)
        if isinstance(plan, QueryRefusal):
            return Chosen(())
        return Chosen(plan.rows, lambda row: late_after_s(plan, context, row, stream=False))


class RandomRow:
    """Any eligible row, at random."""

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        return _by(_passing(context), lambda row: rng.random(), context)


class RoundRobin:
    """The eligible row that has not been queried for longest."""

    def __init__(self) -> None:
        self._turn = 0
        self._asked: dict[str, int] = {}

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        rows = context.snapshot.rows
        choice = _by(_passing(context), lambda row: self._asked.get(rows[row].id, 0), context)
        for row in choice.rows[:1]:
            self._turn += 1
            self._asked[rows[row].id] = self._turn
        return choice


class LeastBusy:
    """The row with the fewest queries per slot, counting this gateway's or as facilities report."""

    def __init__(self, *, reported: bool) -> None:
        self._reported = reported

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        columns = context.snapshot.columns
        busy = (columns.in_flight if self._reported else context.in_flight) / columns.slots
        return _by(_passing(context), lambda row: (busy[row], rng.random()), context)


class TwoChoices:
    """The less busy of two random rows.

    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 2001.
    """

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
        rows = [row for _, row in sorted((rng.random(), row) for row in _passing(context))]
        busy = np.maximum(context.snapshot.columns.in_flight, context.in_flight)
        per_slot: Floats = busy / context.snapshot.columns.slots
        two, others = rows[:2], rows[2:]
        two.sort(key=lambda row: float(per_slot[row]))
        return Chosen((*two, *others)[: context.intent.constraints.attempts])


def _passing(context: QueryContext) -> list[int]:
    """The same rows from which QIRCE would choose."""
    cut = relevant_to(
        context.snapshot,
        context.intent,
        context.paths,
        context.in_flight,
        context.now_s,
        context.excluded,
    )
    passes = passing(cut)
    return [int(row) for row in cut.numbers[passes]]


def _by(rows: list[int], key: Callable[[int], object], context: QueryContext) -> Chosen:
    ordered = sorted(rows, key=key)  # type: ignore[arg-type]
    return Chosen(tuple(ordered[: context.intent.constraints.attempts]))
