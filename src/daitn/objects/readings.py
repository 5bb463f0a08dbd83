"""Measured numbers, each with its age and origin.

The garbage collector does not track them (`gc=False`): a control centre keeps some 250,000 links,
and a full collection took three times as long. They hold no reference to anything that could refer
back.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.identifiers import SiteId, Word

__all__ = ["LinkReading", "LoadReading", "Measured", "Reading", "ServingReading"]


Measured = Annotated[float, msgspec.Meta(ge=0.0, le=1e18)]
Load = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Moment = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
"""All numbers are finite: one NaN would spoil every sum that includes it."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A measured quantity. The name of the field that holds it gives its unit."""

    value: Measured
    at_s: Moment
    """Time of the measurement, seconds since the Unix epoch on the clock of `origin`."""
    origin: SiteId

    def age_s(self, now_s: float) -> float:
        """Seconds since the measurement; never negative, even if two sites' clocks disagree."""
        return max(0.0, now_s - self.at_s)


class LinkReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Reachability of `target` from `source`, measured by `source`. Absent fields were not
    measured."""

    source: SiteId
    target: SiteId
    rtt_s: Reading | None = None
    throughput_bps: Reading | None = None
    """Bytes per second of verified model chunks, or of a probe."""
    loss: Reading | None = None
    """Share of probes without an answer, in [0, 1]."""


class LoadReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Load of a site."""

    site: SiteId
    queue: Reading
    """Visits and verifications accepted but not finished."""
    cpu_share: Reading
    """Share of the site's processors in use, in [0, 1]."""
    disk_free_bytes: Reading


class ServingReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A deployment's load and speed, measured by its facility."""

    deployment: Word
    in_flight: Load
    """Queries being answered."""
    waiting: Load
    """Queries that wait for a slot."""
    first_token_s: Measured | None = None
    """From taking a slot to the first piece of the answer, smoothed; excludes waiting."""
    per_token_s: Measured | None = None
    """Per further token, smoothed."""
    error_share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    """Share of recent queries that failed, smoothed, in [0, 1]."""
