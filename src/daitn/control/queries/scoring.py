"""How QIRCE compares deployments that may answer a query."""

from __future__ import annotations

from typing import Final

import numpy as np

from daitn.policy.pipeline import Policy, every
from daitn.topology.arrays import Flags, Floats
from daitn.topology.qrrt.relevance import QsQrrt

__all__ = ["QIRCE", "Weighed"]

_LEAST_S = 0.05
"""Added to every time: people perceive answers within a tenth of a second as immediate (Card, Moran
and Newell, "The Psychology of Human-Computer Interaction", 1983), so much smaller differences do
not matter, and a time measured only once may be off by that much."""
WAIT_WEIGHS = 2.0
"""A waiting query makes those behind it wait too. In an M/M/1 queue with utilisation r, one more
query costs everyone together (2 - r) / (1 - r) times its own wait, at least twice. With this
weight, gateways that each choose the best for their own query do not crowd the fastest deployments;
see `benchmarks/routing.py`, where larger weights improve the mean and slow the slowest answers."""
_LEAST_USD = 1e-6
"""A ten-thousandth of a cent, for the same reason."""


class Weighed:
    """A cut with the session's last row and the expected waits."""

    __slots__ = ("_barrier", "_passed", "affinity", "cut", "wait_s")

    def __init__(self, cut: QsQrrt, affinity: int, wait_s: Floats | None = None) -> None:
        """`wait_s` if the waits are known; otherwise estimated."""
        self.cut = cut
        self.affinity = affinity
        self.wait_s = _usual_wait_s(cut) if wait_s is None else wait_s
        self._passed: Flags | None = None
        self._barrier: Floats | None = None

    def least(self, values: Floats, passes: Flags) -> float:
        """Minimum over the rows that passed; infinite if none did."""
        if self._passed is not passes:
            self._passed = passes
            self._barrier = None if every(passes) else np.where(passes, 0.0, np.inf)
        # A reduction with `where` takes up to ten times as long.
        totals = values if self._barrier is None else values + self._barrier
        return float(np.minimum.reduce(totals, initial=np.inf))


def _usual_wait_s(cut: QsQrrt) -> Floats:
    """Wait for a slot if the queries ahead get answers of usual length.

    The cut's own estimate assumes the asker's answer length, which would drive long answers away
    from fast deployments.
    """
    tokens = cut.intent.tokens_usual
    if tokens is None:
        return cut.wait_s
    wait_s: Floats = cut.ahead * (cut.per_token_s * tokens + cut.first_piece_s)
    return wait_s / cut.selected.slots


def _accuracy(weighed: Weighed, passes: Flags) -> Floats:
    """The accuracy on the topic; that of an unmeasured deployment if unknown at the required trust,
    so claims gain nothing."""
    return weighed.cut.expected_accuracy


def _latency(weighed: Weighed, passes: Flags) -> Floats:
    """1 for the fastest, 1/2 for twice its time to the end of the answer.

    The time includes the delay to other queries; a failure costs about one more attempt.
    """
    cut = weighed.cut
    attempts = cut.snapshot.columns.error_share[cut.rows] + 1.0
    seconds = weighed.wait_s * WAIT_WEIGHS + (cut.rtt_s + cut.service_s)
    return _relative(weighed, seconds * attempts + _LEAST_S, passes)


def _cost(weighed: Weighed, passes: Flags) -> Floats:
    """1 for the cheapest, 1/2 for twice its cost."""
    return _relative(weighed, weighed.cut.cost_usd + _LEAST_USD, passes)


def _affinity(weighed: Weighed, passes: Flags) -> Floats | float:
    """1 for the row that last answered the session, or a prompt with the same prefix."""
    if weighed.affinity < 0:
        return 0.0
    terms: Floats = (weighed.cut.numbers == weighed.affinity).astype(np.float64)
    return terms


def _relative(weighed: Weighed, values: Floats, passes: Flags) -> Floats:
    """The least value among those that passed, divided by each value; only their terms are used."""
    least = weighed.least(values, passes)
    if least == np.inf:  # None passed, and some may have no path.
        return np.zeros(len(values))
    terms: Floats = least / values
    return terms


QIRCE: Final = Policy[Weighed](
    name="qirce",
    scorers={
        "accuracy": _accuracy,
        "latency": _latency,
        "cost": _cost,
        "affinity": _affinity,
    },
    weights={"accuracy": 2.0, "latency": 1.0, "cost": 1.0, "affinity": 0.5},
)
"""By default, accuracy counts as much as speed and cost together; a warm cache makes up half the
difference to a deployment that is twice as fast."""
