"""Requests to forwarders and their reports: modes, advice, probes, traces."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.decisions import Decision
from daitn.objects.identifiers import SiteId, Word

__all__ = [
    "Advice",
    "ControlMode",
    "ForwarderReport",
    "HopReport",
    "LinkReport",
    "OriginReport",
    "PendingReport",
    "Probe",
    "ProbeReport",
    "Steer",
    "StepReport",
    "TraceQuestion",
    "TraceReport",
]

MOST_HOPS = 64
"""Forwarders that may pass on one object."""

Weight = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
Weights = Annotated[dict[str, Weight], msgspec.Meta(max_length=16)]


class ControlMode(enum.StrEnum):
    """What determines a forwarder's preferences."""

    STANDALONE = "standalone"
    """Only what its neighbours advertise and what it learns."""
    NON_STANDALONE = "non-standalone"
    """Also a control centre's advice; {ADVICE_LASTS_S} after the last one, it goes on alone."""
    HIERARCHICAL = "hierarchical"
    """Likewise; a domain's centre repeats its `root`'s advice unless its own operator has set some.
    Forwarders of other domains know what the `domain` offers, but none of its sites."""


ADVICE_LASTS_S = 5.0
"""Advice expires if it is not repeated for this long."""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre's advice to its forwarders, repeated because a message may be lost."""

    version: int
    """Grows with every change."""
    mode: ControlMode | None = None
    """Absent means each forwarder keeps the mode from its file."""
    prefer: Weights = {}
    """Scorer (`accuracy`, `latency`, `cost`) to weight; scorers not named keep theirs."""


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """Changes how one forwarder is controlled; at the control centre, its advice to all."""

    mode: ControlMode | None = None
    """Absent means unchanged."""
    prefer: Weights | None = None
    """Absent means unchanged."""
    reset: bool = False
    """Undo earlier changes first."""


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a forwarder."""

    neighbour: SiteId
    up: bool
    cost_s: float
    """One-way delay in seconds."""
    downs: int
    messages_in: int
    messages_out: int
    dropped: int


class OriginReport(msgspec.Struct, frozen=True, kw_only=True):
    """A reachable origin, and what it offers."""

    origin: Word
    via: Word
    """Next hop; empty means local."""
    distance_s: float
    offers: tuple[str, ...]


class ForwarderReport(msgspec.Struct, frozen=True, kw_only=True):
    """State of a forwarder."""

    site: SiteId
    mode: ControlMode
    domain: Word
    advised: bool
    """Whether a control centre's advice is in force now."""
    prefer: dict[str, float]
    """Weights in force beside the defaults."""
    links: tuple[LinkReport, ...]
    origins: tuple[OriginReport, ...]
    objects: int
    """Number of remembered objects."""
    counts: dict[str, int]
    """Packets by outcome since it started."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Sends a probe along the route that an object with this intent would take."""

    intent: bytes
    """The intent, in the wire form of packets."""
    hop_limit: Annotated[int, msgspec.Meta(ge=0, le=MOST_HOPS)] = 32
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0


class HopReport(msgspec.Struct, frozen=True, kw_only=True):
    """One hop of a path."""

    site: Word
    action: Word
    after_s: float
    """Seconds since the first hop, by the sites' clocks."""


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a probe."""

    object: Word
    hops: tuple[HopReport, ...]
    taken_s: float
    refused: str = ""
    """Why it came back before it arrived; empty means it arrived."""


class TraceQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Asks what a forwarder knows about an object."""

    object: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One routing decision of a forwarder for an object."""

    at_s: float
    via: Word
    """Next hop; empty means delivered locally, or no route (see `found`)."""
    origin: Word
    found: bool
    expected_s: float
    decision: Decision


class PendingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one forwarder remembers about one branch of an object."""

    site: Word
    branch: int
    attempt: int
    phase: Word
    came_from: tuple[str, ...]
    """Empty means it started here."""
    since_s: float
    steps: tuple[StepReport, ...]


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the forwarders on an object's path remember about it, in path order."""

    object: Word
    pending: tuple[PendingReport, ...]
    silent: tuple[str, ...] = ()
    """Sites on the path that did not answer."""
