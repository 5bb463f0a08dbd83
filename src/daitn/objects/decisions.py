"""What was decided and why, in a form that is shown, stored and replayed.

A *rejection* says by how much a candidate misses a bound; a *term* says what one scorer made of
a candidate. `daitn explain`, the feasibility assessment and the audit all show these values.
"""

from __future__ import annotations

import msgspec

__all__ = ["Assessment", "Decision", "PlannedVisit", "Rejection", "Relaxation", "Route", "Scored"]

from daitn.objects.identifiers import Digest, SiteId


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a candidate (a data set, a verifier, a route) is out."""

    candidate: str
    """`site/dataset`, `site`, or a route's id."""
    filter: str
    """The filter that rejects it."""
    reason: str
    """A sentence for people."""
    field: str
    """The field of the intent that would have to change, for instance `requirements[0]`."""
    shortfall: float = 1.0
    """How far the value misses the bound, in `unit`; 1 where there is no measure."""
    unit: str = ""
    relax_to: str = ""
    """The value of `field` at which this filter would pass; empty if none would."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that passed every filter, with each scorer's term in [0, 1]."""

    candidate: str
    score: float
    """Weighted mean of the terms."""
    terms: dict[str, float]
    expected: dict[str, float] = {}
    """Of a route: objective to the value that is expected to be measured at its end."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one policy: the ranking with its terms, and every rejection."""

    policy: str
    chosen: str | None
    """Id of the picked candidate; none if all were rejected."""
    ranking: tuple[Scored, ...]
    """Best first, at most the first 20."""
    rejections: tuple[Rejection, ...]
    snapshot_version: int
    at_s: float


class PlannedVisit(msgspec.Struct, frozen=True, kw_only=True):
    """One stop of a route."""

    site: SiteId
    dataset: str
    examples: int
    expected_s: float
    """Transfer, training and verification."""
    expected_cost_usd: float
    expected: dict[str, float]
    """Objective to the value that is expected to be measured after the visit."""
    release_to: tuple[str, ...]
    """Jurisdictions into which the data's owner lets a model travel that learned there."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A plan from one checkpoint on. Only its first visit is certain: each verification replans."""

    start: Digest | None
    """Model from which it goes on; none for a fresh model."""
    visits: tuple[PlannedVisit, ...]
    reaches: bool
    """Whether every objective is expected to hold at its end."""
    chance: float = 0.0
    """How likely that is believed to be, in [0, 1]."""


class Relaxation(msgspec.Struct, frozen=True, kw_only=True):
    """A single change to an intent that would, by itself, make it feasible."""

    field: str
    current: str
    proposed: str
    effect: str


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """What a feasibility module says: yes, or no with reasons and smallest relaxations."""

    feasible: bool
    reasons: tuple[str, ...]
    rejections: tuple[Rejection, ...]
    relaxations: tuple[Relaxation, ...]
    route: Route | None = None
    """The route that would be taken, where there is one."""
    snapshot_version: int
