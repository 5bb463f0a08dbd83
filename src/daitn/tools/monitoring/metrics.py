"""Metrics of a process: their names, and the numbers behind them.

A part counts in plain attributes, and yields samples when somebody asks: nothing is locked, looked
up or formatted where work is done. Names follow Prometheus' rules
(https://prometheus.io/docs/practices/naming/): base units, `_total` for counters.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

__all__ = [
    "FAST_S",
    "FIRST_TOKEN_S",
    "MOST_NAMES",
    "OTHER",
    "REQUEST_S",
    "WORK_S",
    "BoundedNames",
    "Histogram",
    "Measured",
    "Metric",
    "MetricKind",
    "Sample",
    "counter",
    "gauge",
    "histogram",
]

REQUEST_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
"""Buckets of a request: from a cache's answer to a long text."""
FIRST_TOKEN_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
"""OpenTelemetry's buckets of `gen_ai.server.time_to_first_token`."""
FAST_S: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0),
)
"""Buckets of a process's internal operations."""
WORK_S: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Buckets of training and measuring."""
MOST_NAMES: Final = 256
OTHER: Final = "other"
"""Represents the names beyond those, and unknown ones."""


class MetricKind(enum.StrEnum):
    """Prometheus' types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True):
    """The description of a metric."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()

    def at(self, value: float | Histogram, *labels: str) -> Sample:
        """Its value for these labels, in the order of `labels`."""
        return Sample(self, value, labels)

    def by(self, values: Mapping[str, float], known: Iterable[str] = ()) -> Iterator[Sample]:
        """Its values by its only label; 0 for those `known` labels that have none, as a series that
        appears with its first event hides that event from `rate`."""
        for label in sorted({*known, *values}):
            yield Sample(self, values.get(label, 0), (label,))


class Sample(NamedTuple):
    """A metric's value for one set of labels."""

    metric: Metric
    value: float | Histogram
    labels: tuple[str, ...]


Measured = Callable[[], Iterable[Sample]]
"""Returns the current values of a part's metrics."""


def counter(name: str, help_: str, *labels: str) -> Metric:
    """Describe a number that only grows while its process runs."""
    return Metric(name, MetricKind.COUNTER, help_, labels)


def gauge(name: str, help_: str, *labels: str) -> Metric:
    """Describe a number that grows and shrinks."""
    return Metric(name, MetricKind.GAUGE, help_, labels)


def histogram(name: str, help_: str, *labels: str) -> Metric:
    """Describe a distribution."""
    return Metric(name, MetricKind.HISTOGRAM, help_, labels)


class Histogram:
    """Counts of values per bucket."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds`: the largest value of each bucket except the last, in ascending order."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, int]]:
        """Each bucket's bound in Prometheus' notation, and how many values are at most that."""
        bounds = [*map(repr, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class BoundedNames:
    """Bounds the names that become labels; names beyond that count as `OTHER`. Names from outside
    would otherwise fill the memory of everybody who stores a series for each."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._known: set[str] = set()
        self._most = most

    def label(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name
