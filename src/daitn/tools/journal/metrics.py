"""Metrics of a journal."""

from __future__ import annotations

from typing import Final

from daitn.tools.monitoring.metrics import counter, histogram

__all__ = ["METRICS", "WRITES", "WRITE_DURATION", "WRITTEN"]

WRITES: Final = counter("daitn_journal_facts_total", "Job facts (events) written to the journal.")
WRITTEN: Final = counter("daitn_journal_written_bytes_total", "Bytes of these facts.")
WRITE_DURATION: Final = histogram(
    "daitn_journal_write_duration_seconds",
    "Time until a write to the journal is on disk.",
)
METRICS: Final = (WRITES, WRITTEN, WRITE_DURATION)
