"""Metrics of a verifier's examinations of deployed models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from daitn.tools.monitoring.metrics import (
    REQUEST_S,
    Histogram,
    Sample,
    counter,
    gauge,
    histogram,
)

__all__ = ["METRICS", "VerifierMetrics"]

EXAMINATIONS: Final = counter(
    "daitn_verifier_examinations_total",
    "Rounds of questions to a deployment: `measured`, `silent` (too few answers), `changed` (the "
    "model changed meanwhile), `refused` by the policy of the test set, or `failed`.",
    "outcome",
)
DURATION: Final = histogram(
    "daitn_verifier_examination_duration_seconds", "Duration of such a round."
)
DEGRADED: Final = counter(
    "daitn_verifier_degraded_total", "Measurements that are significantly worse than before."
)
FINDINGS: Final = gauge(
    "daitn_verifier_findings", "Pairs of deployment and topic with a measurement."
)
_OUTCOMES: Final = ("measured", "silent", "changed", "refused", "failed")
METRICS: Final = (EXAMINATIONS, DURATION, DEGRADED, FINDINGS)


class VerifierMetrics:
    """The numbers of one verifier since it started."""

    def __init__(self) -> None:
        self.examinations: Counter[str] = Counter()
        self.duration = Histogram(REQUEST_S)
        self.degraded = 0

    def measured(self, findings: int) -> Iterator[Sample]:
        """See `Measured`."""
        yield from EXAMINATIONS.by(self.examinations, _OUTCOMES)
        yield DURATION.at(self.duration)
        yield DEGRADED.at(self.degraded)
        yield FINDINGS.at(findings)
