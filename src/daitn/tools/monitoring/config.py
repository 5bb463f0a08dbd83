"""Addresses for metrics and traces: the same sections in centre and node files."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["MetricsConfig", "TracesConfig"]


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Address of a process's metrics for Prometheus, at `/metrics`."""

    listen: str | None = None
    """Address, for instance `127.0.0.1:7489`, or `https://10.0.0.5:7489` with the process's own
    certificate; empty means none. Anyone who reaches it can read names of models, data sets and
    sites, and numbers, but no texts. By default {objects.default_addresses.METRICS.node} for a node
    and {objects.default_addresses.METRICS.center} for a control centre, or a free port if that one
    is taken; `metrics.json` in `state` has the address."""


class TracesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Destination of OpenTelemetry's spans of queries and jobs; `pip install 'daitn[traces]'`."""

    endpoint: Annotated[str, msgspec.Meta(pattern=r"^(https?://\S+)?$")] = ""
    """URL of a collector that accepts OTLP over HTTP, for instance `http://127.0.0.1:4318`; empty
    means no tracing."""
    ratio: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.1
    """Share of queries to trace; a query with a `traceparent` header is traced if the header marks
    it as sampled. All jobs are traced."""
