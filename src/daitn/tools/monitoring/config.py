"""Where a process tells its operator about itself: the same sections in centre and node files."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["MetricsConfig", "TracesConfig"]


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Prometheus finds a process's metrics: at `/metrics`."""

    listen: str | None = None
    """Address, for instance `127.0.0.1:7489`, or `https://10.0.0.5:7489` with the process's own
    certificate; empty: nowhere. Whoever reaches it reads names of models, data sets and sites, and
    numbers, but no texts. Not stated: at a node `127.0.0.1:7489`, at a control centre
    `127.0.0.1:7449`, and where that is taken a free port; `metrics.json` in `state` has it."""


class TracesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where OpenTelemetry's spans of queries and jobs go; `pip install 'daitn[traces]'`."""

    endpoint: Annotated[str, msgspec.Meta(pattern=r"^(https?://\S+)?$")] = ""
    """URL of a collector that takes OTLP over HTTP, for instance `http://127.0.0.1:4318`; empty:
    nothing is traced."""
    ratio: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.1
    """Share of the queries that are traced; of those with a `traceparent` header, the ones that it
    marks as sampled. Jobs are few: all of them are."""
