"""Metrics of a process's messages on the fabric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from daitn.tools.monitoring.metrics import Sample, counter

__all__ = ["METRICS", "FabricMetrics"]

MESSAGES: Final = counter(
    "daitn_fabric_messages_total",
    "Messages of this process: `published` and `received` publications, requests that it sent "
    "(`asked`, in bulk `asked_bulk`) and requests that it served (`answered`).",
    "kind",
)
BYTES: Final = counter(
    "daitn_fabric_bytes_total",
    "Bytes of these messages, without answers.",
    "kind",
)
METRICS: Final = (MESSAGES, BYTES)


class FabricMetrics:
    """The numbers of one session. Count on the event loop's thread."""

    def __init__(self) -> None:
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def count(self, kind: str, payload: bytes) -> None:
        self._messages[kind] += 1
        self._bytes[kind] += len(payload)

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield from MESSAGES.by(self._messages)
        yield from BYTES.by(self._bytes)
