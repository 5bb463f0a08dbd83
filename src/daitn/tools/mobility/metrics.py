"""What a holder and a fetcher of models count."""

from __future__ import annotations

from typing import Final

from daitn.tools.monitoring.metrics import counter

__all__ = ["FETCH_METRICS", "OUTCOMES", "SERVE_METRICS"]

RECEIVED: Final = counter(
    "daitn_mobility_received_bytes_total", "Bytes of models that came from other sites."
)
FETCHES: Final = counter(
    "daitn_mobility_fetches_total", "Models that were fetched, by how that ended.", "outcome"
)
CACHE_HITS: Final = counter(
    "daitn_mobility_cache_hits_total", "Chunks of wanted models that were here already."
)
CACHE_MISSES: Final = counter(
    "daitn_mobility_cache_misses_total", "Chunks of wanted models that had to be fetched."
)
SENT: Final = counter("daitn_mobility_sent_bytes_total", "Bytes of models sent to other sites.")
SENT_CHUNKS: Final = counter(
    "daitn_mobility_sent_chunks_total", "Chunks of models sent to other sites."
)
OUTCOMES: Final = ("done", "failed", "cancelled")
FETCH_METRICS: Final = (RECEIVED, FETCHES, CACHE_HITS, CACHE_MISSES)
SERVE_METRICS: Final = (SENT, SENT_CHUNKS)
