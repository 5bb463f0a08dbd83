"""The changes of its file that a running node applies."""

from __future__ import annotations

from typing import Final

from daitn.node.config.node import NodeConfig, ReadNodeConfig

__all__ = ["LIVE", "NOTES"]

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
"""Settings that apply to each piece of work on arrival. Settings behind a descriptor's
measurements, such as `least_records`, and permanent spending, `privacy`, wait for the next
start."""
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
NOTES: Final = frozenset(ReadNodeConfig.__struct_fields__) - {*NodeConfig.__struct_fields__}
"""What is noted when a file is read."""
