"""What is asked of forwarders and told by them: modes, advice, reports."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.decisions import Decision
from daitn.objects.identifiers import SiteId

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

Weight = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
Weights = Annotated[dict[str, Weight], msgspec.Meta(max_length=16)]


class ControlMode(enum.StrEnum):
    """Who has a say in what a forwarder prefers."""

    STANDALONE = "standalone"
    """Nobody: it knows what its neighbours tell and what it learns."""
    NON_STANDALONE = "non-standalone"
    """A control centre advises it; without advice it goes on alone."""
    HIERARCHICAL = "hierarchical"
    """Likewise, and other domains know of its own domain as a whole, not of its sites."""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What a control centre wants its forwarders to do. Told again and again, lest it be lost."""

    version: int
    """Counted up with every change."""
    mode: ControlMode | None = None
    """None: each as its file says."""
    prefer: Weights = {}
    """Scorer (`accuracy`, `latency`, `cost`) to weight; those that are not named stay."""


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """Changes how one forwarder is controlled, or at the control centre what all are advised."""

    mode: ControlMode | None = None
    """None: leave it."""
    prefer: Weights | None = None
    """None: leave them."""
    reset: bool = False
    """First take back what was said before."""


class LinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """A link of a forwarder."""

    neighbour: SiteId
    up: bool
    cost_s: float
    """Delay one way, in seconds."""
    downs: int
    messages_in: int
    messages_out: int
    dropped: int


class OriginReport(msgspec.Struct, frozen=True, kw_only=True):
    """Who can be reached, and what is offered there."""

    origin: str
    via: str
    """Empty: here."""
    distance_s: float
    offers: tuple[str, ...]


class ForwarderReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a forwarder does."""

    site: SiteId
    mode: ControlMode
    domain: str
    advised: bool
    """Whether a control centre's advice counts now."""
    prefer: dict[str, float]
    """Weights in use beside the usual ones."""
    links: tuple[LinkReport, ...]
    origins: tuple[OriginReport, ...]
    objects: int
    """That it remembers."""
    counts: dict[str, int]
    """Packets by what became of them, since it started."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Sends a probe to where an object with this want would go."""

    intent: bytes
    """The want, in the wire form of packets."""
    hop_limit: Annotated[int, msgspec.Meta(ge=0, le=64)] = 32
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0


class HopReport(msgspec.Struct, frozen=True, kw_only=True):
    """One hop of a path."""

    site: str
    action: str
    after_s: float
    """Since the first hop, by the clocks of the sites."""


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a probe."""

    object: str
    hops: tuple[HopReport, ...]
    taken_s: float
    refused: str = ""
    """Why it came back from where it could not go on; empty: it arrived."""


class TraceQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Asks what a forwarder knows of an object."""

    object: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a forwarder looked for a way for an object."""

    at_s: float
    via: str
    """Empty: delivered here, or no way (`found`)."""
    origin: str
    found: bool
    expected_s: float
    decision: Decision


class PendingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one forwarder remembers of one branch of an object."""

    site: str
    branch: int
    attempt: int
    phase: str
    came_from: tuple[str, ...]
    """Empty text: it set out here."""
    since_s: float
    steps: tuple[StepReport, ...]


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the forwarders on an object's path remember of it, in the order of the path."""

    object: str
    pending: tuple[PendingReport, ...]
    silent: tuple[str, ...] = ()
    """Sites on the path that did not say."""
