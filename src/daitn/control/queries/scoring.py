"""How QIRCE compares deployments that may answer a query."""

from __future__ import annotations

from typing import Final

import numpy as np

from daitn.policy.policy import Policy, every
from daitn.topology.qrrt.load import usual_tokens
from daitn.topology.qrrt.relevance import QsQrrt
from daitn.topology.qrrt.snapshot import Flags, Floats

__all__ = ["QIRCE", "Weighed"]

_LEAST_S = 0.05
"""Added to every time: answers within a tenth of a second are felt as immediate (Card, Moran and
Newell, "The Psychology of Human-Computer Interaction", 1983), so differences far below it do not
matter, and a time that was measured once may be that far off."""
WAIT_WEIGHS = 2.0
"""A query that waits makes those after it wait too. At an M/M/1 queue with utilisation r, one more
query costs all together (2 - r) / (1 - r) times its own wait, at least twice. With it, gateways
that each take what is best for their own query do not crowd the fastest deployments; see
`benchmarks/routing.py`, where larger weights make the mean better and the slowest answers slower.
"""
_LEAST_USD = 1e-6
"""A ten-thousandth of a cent, likewise."""


class Weighed:
    """A cut with the row that answered the session last, and what the query's waits come to."""

    __slots__ = ("_barrier", "_passed", "affinity", "cut", "wait_s")

    def __init__(self, cut: QsQrrt, affinity: int, wait_s: Floats | None = None) -> None:
        """`wait_s` where waits are known; else they are reckoned."""
        self.cut = cut
        self.affinity = affinity
        self.wait_s = _usual_wait_s(cut) if wait_s is None else wait_s
        self._passed: Flags | None = None
        self._barrier: Floats | None = None

    def least(self, values: Floats, passes: Flags) -> float:
        """Of the rows that passed; infinite where none did."""
        if self._passed is not passes:
            self._passed = passes
            self._barrier = None if every(passes) else np.where(passes, 0.0, np.inf)
        # A reduction that is told `where` takes up to ten times as long.
        there = values if self._barrier is None else values + self._barrier
        return float(np.minimum.reduce(there, initial=np.inf))


def _usual_wait_s(cut: QsQrrt) -> Floats:
    """For a slot, where those ahead get answers of usual length. The asker's own, with which the
    cut reckons where nothing else is known, would drive long answers from where they are fast."""
    tokens = usual_tokens(cut.snapshot, cut.intent.origin)
    if tokens is None or not cut.intent.tokens_out:
        return cut.wait_s
    wait_s: Floats = cut.ahead * (cut.per_token_s * tokens + cut.first_piece_s)
    return wait_s / cut.selected.slots


def _accuracy(weighed: Weighed, passes: Flags) -> Floats:
    """The accuracy on the topic; 0 where it is not known with the trust that is wished: what a
    provider claims earns it nothing."""
    return weighed.cut.known_accuracy


def _latency(weighed: Weighed, passes: Flags) -> Floats:
    """1 for the fastest, 1/2 for twice its time to the end of the answer, with the time that it
    costs others. A failure costs about one more attempt."""
    cut = weighed.cut
    attempts = cut.snapshot.columns.error_share[cut.rows] + 1.0
    seconds = weighed.wait_s * WAIT_WEIGHS + (cut.rtt_s + cut.service_s)
    return _relative(weighed, seconds * attempts + _LEAST_S, passes)


def _cost(weighed: Weighed, passes: Flags) -> Floats:
    """1 for the cheapest, 1/2 for twice its cost."""
    return _relative(weighed, weighed.cut.cost_usd + _LEAST_USD, passes)


def _affinity(weighed: Weighed, passes: Flags) -> Floats | float:
    """1 for the row that answered the session, or a prompt of the same prefix, last."""
    if weighed.affinity < 0:
        return 0.0
    terms: Floats = (weighed.cut.numbers == weighed.affinity).astype(np.float64)
    return terms


def _relative(weighed: Weighed, values: Floats, passes: Flags) -> Floats:
    """The least value of those that passed over each; only terms of those are looked at."""
    least = weighed.least(values, passes)
    if least == np.inf:  # None passed, and there may be no path to some.
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
"""By default, being right counts as much as being fast and cheap together; a warm cache halves
the difference between a deployment and one that is twice as fast."""
