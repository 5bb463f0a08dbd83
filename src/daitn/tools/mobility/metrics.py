"""Metrics of a holder and a fetcher of models."""

from __future__ import annotations

from typing import Final

from daitn.tools.monitoring.metrics import counter

__all__ = ["FETCH_METRICS", "OUTCOMES", "SERVE_METRICS"]

RECEIVED: Final = counter(
    "daitn_mobility_received_bytes_total", "Bytes of models received from other sites."
)
FETCHES: Final = counter(
    "daitn_mobility_fetches_total", "Fetches of models, by outcome.", "outcome"
)
CACHE_HITS: Final = counter(
    "daitn_mobility_cache_hits_total", "Chunks of requested models that were already here."
)
CACHE_MISSES: Final = counter(
    "daitn_mobility_cache_misses_total", "Chunks of requested models that had to be fetched."
)
SENT: Final = counter("daitn_mobility_sent_bytes_total", "Bytes of models sent to other sites.")
SENT_CHUNKS: Final = counter(
    "daitn_mobility_sent_chunks_total", "Chunks of models sent to other sites."
)
OUTCOMES: Final = ("done", "failed", "cancelled")
FETCH_METRICS: Final = (RECEIVED, FETCHES, CACHE_HITS, CACHE_MISSES)
SERVE_METRICS: Final = (SENT, SENT_CHUNKS)
