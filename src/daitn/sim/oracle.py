"""An oracle: QIRCE's own weighing, of what will really be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from daitn.control.queries.context import QueryContext
from daitn.control.queries.scoring import QIRCE, Weighed
from daitn.policy.arrays import best_first
from daitn.policy.pipeline import Rng
from daitn.sim.choosing import Choice
from daitn.sim.load import Arrival
from daitn.sim.station import Station
from daitn.topology.qrrt.filters import FILTERS
from daitn.topology.qrrt.relevance import QsQrrt, relevant_to

__all__ = ["Oracle"]

_TRUE = frozenset(
    {"api", "release", "askers", "jurisdiction", "owner", "privacy", "accuracy", "context", "sound"}
)
"""Filters that rest on nothing that changes while queries come: what they say is so."""


class Oracle:
    """Knows how long the answer gets, and all that is under way everywhere, from all gateways.

    It takes what is best for this query by the query's weights: with no weight but on latency,
    the deployment at which the answer is there first, unless it is to weigh what others wait.
    """

    def __init__(
        self,
        stations: Mapping[str, Station],
        rtt_s: Callable[[QueryContext, int], float],
        *,
        caring: bool,
    ) -> None:
        """`stations` by deployment id. `rtt_s`: of the path to a row, as it is. `caring`: whether
        it weighs what a query's waiting costs others, as QIRCE does."""
        self._stations = stations
        self._rtt_s = rtt_s
        self._caring = caring

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Choice:
        cut = relevant_to(
            context.snapshot,
            context.intent,
            context.paths,
            context.in_flight,
            context.now_s,
            context.excluded,
        )
        passes = np.ones(len(cut.numbers), np.bool_)
        for filter_ in FILTERS:
            if filter_.name in _TRUE:
                passes &= filter_.passes(cut)
        self._foresee(cut, context, arrival)
        passes &= np.isfinite(cut.seconds)
        scores = QIRCE.scores(Weighed(cut, context.affinity), passes, context.preferences)
        best = best_first(scores, context.intent.wishes.attempts, 0.0, rng)
        return Choice(tuple(int(cut.numbers[at]) for at in best))

    def _foresee(self, cut: QsQrrt, context: QueryContext, arrival: Arrival) -> None:
        """What is expected of the rows becomes what will be."""
        for at, row in enumerate(cut.numbers):
            station = self._stations[context.snapshot.rows[row].id]
            rtt_s = self._rtt_s(context, int(row))
            ends_s = station.would_end_at_s(arrival, context.now_s + rtt_s / 2)
            seconds = np.inf if ends_s is None else ends_s + rtt_s / 2 - context.now_s
            waits_s = seconds - rtt_s - station.service_s(arrival)
            cut.wait_s[at] = waits_s if self._caring and ends_s is not None else 0.0
            cut.seconds[at] = seconds
            cut.cost_usd[at] = station.spec.cost_usd(arrival.tokens_in, arrival.tokens_out)
