"""What of a node's file a running node takes over."""

from __future__ import annotations

from typing import Final

__all__ = ["LIVE"]

_POLICY: Final = (
    "recipes",
    "owners",
    "purposes",
    "release_to",
    "hours",
    "time_zone",
    "start_models",
    "secure_aggregation",
    "limits",
)
"""What is decided about each piece of work as it comes. What a descriptor was measured by, such as
`least_records`, and what is spent for good, `privacy`, waits for the next start."""
LIVE: Final = frozenset(
    {
        "drain_s",
        "longest_s",
        "gateway.keys",
        "gateway.needs_token",
        "gateway.max_in_flight",
        "compute.price_usd_per_hour",
        "datasets[].price_usd_per_1k",
        "datasets[].licence",
        "datasets[].description",
        *(f"{data}[].policy.{field}" for data in ("datasets", "tests") for field in _POLICY),
    }
)
