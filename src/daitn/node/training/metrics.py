"""Metrics of a site's work: visits, merges of rounds, and measurements."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work, WorkOutcome
from daitn.tools.monitoring.metrics import (
    WORK_S,
    Histogram,
    Sample,
    counter,
    gauge,
    histogram,
)

__all__ = ["KINDS", "METRICS", "WorkMetrics"]

ENDED: Final = counter(
    "daitn_work_total",
    "Ended pieces of work, `done` or `failed`: a model's `visit` at a data set, a `merge` of "
    "a round's models, a verifier's measurement (`verify`).",
    *("kind", "outcome"),
)
DURATION: Final = histogram(
    "daitn_work_duration_seconds",
    "Time from accepting a piece of work to its end, including waiting for its turn and for the "
    "model.",
    "kind",
)
QUEUE: Final = gauge("daitn_work_queue", "Accepted pieces of work that have not ended.")
UNREPORTED: Final = gauge(
    "daitn_work_unreported", "Outcomes not yet acknowledged by the control centre."
)
METRICS: Final = (ENDED, DURATION, QUEUE, UNREPORTED)

KINDS: Final[dict[type[Work], str]] = {
    VisitWork: "visit",
    MergeWork: "merge",
    VerifyWork: "verify",
}


class WorkMetrics:
    """The numbers of one site since it started."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, str]] = Counter()
        self._durations: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(WORK_S))

    def ended(self, work: Work, outcome: WorkOutcome, seconds: float) -> None:
        """A piece of work ended like this."""
        kind = KINDS[type(work)]
        self._ended[kind, outcome.state.value] += 1
        self._durations[kind].observe(seconds)

    def measured(self, queue: int, unreported: int) -> Iterator[Sample]:
        """See `Measured`."""
        for kind, count in sorted(self._ended.items()):
            yield ENDED.at(count, *kind)
        for name, duration in sorted(self._durations.items()):
            yield DURATION.at(duration, name)
        yield QUEUE.at(queue)
        yield UNREPORTED.at(unreported)
