"""Metrics of a control centre's API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from daitn.oam.api.routes import ROUTES
from daitn.tools.monitoring.metrics import REQUEST_S, Histogram, Sample, counter, gauge, histogram

__all__ = ["METRICS", "ApiMetrics"]

REQUESTS: Final = counter(
    "daitn_api_requests_total",
    "Requests to the control centre's API, by operation and status.",
    "operation",
    "status",
)
DURATION: Final = histogram(
    "daitn_api_request_duration_seconds",
    "Time from a request's arrival to its answer; for event streams, to their end.",
)
READERS: Final = gauge("daitn_api_event_readers", "Current readers of events.")
EVENTS: Final = counter("daitn_api_events_total", "Events that happened.")
METRICS: Final = (REQUESTS, DURATION, READERS, EVENTS)


class ApiMetrics:
    """The numbers of one API since it started."""

    def __init__(self) -> None:
        good = {(route.id, str(route.status)): 0 for route in ROUTES}
        self._requests: Counter[tuple[str, str]] = Counter(good)
        self._seconds = Histogram(REQUEST_S)

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests[operation, str(status)] += 1
        self._seconds.observe(seconds)

    def measured(self, readers: int, events: int) -> Iterator[Sample]:
        """See `Measured`."""
        for request, count in sorted(self._requests.items()):
            yield REQUESTS.at(count, *request)
        yield DURATION.at(self._seconds)
        yield READERS.at(readers)
        yield EVENTS.at(events)
