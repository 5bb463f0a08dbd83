"""An oracle: QIRCE's own scoring, applied to the true future."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from daitn.control.queries.context import QueryContext
from daitn.control.queries.scoring import QIRCE, Weighed
from daitn.objects.randomness import Rng
from daitn.policy.pipeline import best_first
from daitn.sim.choosing import Chosen
from daitn.sim.facility import SimulatedFacility
from daitn.sim.load import Arrival
from daitn.topology.arrays import Floats
from daitn.topology.qrrt.filters import FILTERS
from daitn.topology.qrrt.relevance import QsQrrt, relevant_to

__all__ = ["Oracle"]

_TRUE = frozenset(
    {
        "api",
        "release",
        "askers",
        "jurisdiction",
        "owner",
        "privacy",
        "accuracy",
        "context",
        "healthy",
    }
)
"""Filters on constant facts, whose results are therefore true."""


class Oracle:
    """Knows everything in flight anywhere, from all gateways, and every answer's length.

    It takes the best for this query by the query's weights: with weight on latency alone, the
    deployment with the earliest answer, unless it also weighs the delay to others.
    """

    def __init__(
        self,
        facilities: Mapping[str, SimulatedFacility],
        rtt_s: Callable[[QueryContext, int], float],
        *,
        caring: bool,
        guessing: bool,
    ) -> None:
        """`facilities` by deployment id; `rtt_s` gives the true round trip of the path to a row.

        `caring`: whether it weighs the delay that a query causes others, as QIRCE does. `guessing`:
        whether it knows no more about the query at hand than its gateway, which makes it a bound
        for policies that do not.
        """
        self._facilities = facilities
        self._rtt_s = rtt_s
        self._caring = caring
        self._guessing = guessing

    def choose(self, context: QueryContext, arrival: Arrival, rng: Rng) -> Chosen:
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
        if self._guessing:
            tokens = round(context.intent.timed_tokens)
            arrival = msgspec.structs.replace(arrival, tokens_out=tokens, luck=1.0)
        wait_s = self._foresee(cut, context, arrival)
        passes &= np.isfinite(cut.service_s)
        weighed = Weighed(cut, context.affinity, wait_s)
        scores = QIRCE.scores(weighed, passes, context.preferences)
        best = best_first(scores, context.intent.constraints.attempts, 0.0, rng)
        return Chosen(tuple(int(cut.numbers[at]) for at in best))

    def _foresee(self, cut: QsQrrt, context: QueryContext, arrival: Arrival) -> Floats:
        """Replace the rows' estimates with the true future. Returns the waits that get additional
        weight."""
        cut.rtt_s = np.array([self._rtt_s(context, int(row)) for row in cut.numbers])
        wait_s: Floats = np.zeros(len(cut.numbers))
        for at, row in enumerate(cut.numbers):
            facility = self._facilities[context.snapshot.rows[row].id]
            reaches_s = context.now_s + cut.rtt_s[at] / 2
            ends_s = facility.would_end_at_s(arrival, reaches_s)
            at_site_s = np.inf if ends_s is None else ends_s - reaches_s
            if self._caring and ends_s is not None:
                wait_s[at] = at_site_s - facility.service_s(arrival)
            cut.service_s[at] = at_site_s - wait_s[at]
            cut.cost_usd[at] = facility.spec.cost_usd(arrival.tokens_in, arrival.tokens_out)
        return wait_s
