"""Decisions and their reasons, in a form that can be displayed, stored and replayed.

A *rejection* says how far a candidate misses a bound; a *term* is one scorer's value for a
candidate. `daitn explain`, the feasibility assessment and the audit all show these values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

import msgspec

__all__ = [
    "MOST_ALIKE",
    "Assessment",
    "Compared",
    "Decision",
    "Group",
    "PlannedVisit",
    "Rejection",
    "Relaxation",
    "Round",
    "Route",
    "Scored",
    "SiteBelief",
    "nearest",
]

from daitn.objects.compression import Compression
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.merging import Algorithm, MergeRule

MOST_ALIKE: Final = 20
"""Rejections for one reason that are stored with an assessment."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a candidate (a data set, a verifier, a route) was rejected."""

    candidate: str
    """`site/dataset`, `site`, or a route's id."""
    filter: str
    """The filter that rejected it."""
    reason: str
    """A sentence for people."""
    field: str
    """The field of the intent that would have to change, for instance `requirements[0]`."""
    shortfall: float = 1.0
    """How far the value misses the bound, in `unit`; 1 if there is no measure."""
    unit: str = ""
    relax_to: str = ""
    """The value of `field` at which this filter would pass; empty if none would."""


def nearest(rejections: Sequence[Rejection]) -> tuple[Rejection, ...]:
    """For each filter and field, the `MOST_ALIKE` that miss by the least, in their order.

    A network of thousands of sites rejects nearly all of them for a few reasons, and what a job
    keeps is written, sent and shown again and again.
    """
    alike: defaultdict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for at, one in enumerate(rejections):
        alike[one.filter, one.field].append((one.shortfall, at))
    kept = sorted(at for group in alike.values() for _, at in nsmallest(MOST_ALIKE, group))
    return tuple(rejections[at] for at in kept)


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that passed every filter, with each scorer's term in [0, 1]."""

    candidate: str
    score: float
    """Weighted mean of the terms."""
    terms: dict[str, float]
    expected: dict[str, float] = {}
    """For a route: objective to the value expected at its end."""
    expected_s: float | None = None
    """For a route: mean seconds until all targets hold or it ends."""


class SiteBelief(msgspec.Struct, frozen=True, kw_only=True):
    """What one epoch at a data set is expected to teach the model now."""

    candidate: str
    """`site/dataset`."""
    visits: int
    """By this job so far."""
    examples: int
    """In one epoch."""
    expected_s: float
    """Transfer, training and verification, in seconds."""
    gain: dict[str, float]
    """Objective to the expected change of its value."""
    gain_sd: dict[str, float]
    """Standard deviation of that."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """An obvious plan that anybody might follow, compared with the chosen route."""

    plan: str
    """For instance `by size, 1 epoch a visit`."""
    expected_s: float
    """Mean seconds until all targets hold or it ends."""
    chance: float
    """Estimated probability that it reaches them, in [0, 1]."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one policy: the ranking with its terms, and every rejection."""

    policy: str
    chosen: str | None
    """Id of the chosen candidate; none if all were rejected."""
    ranking: tuple[Scored, ...]
    """Best first, at most 20."""
    rejections: tuple[Rejection, ...]
    snapshot_version: int
    at_s: float
    compared: tuple[Compared, ...] = ()
    """For a route: the obvious plans, best first."""
    beliefs: tuple[SiteBelief, ...] = ()
    """For a route: of the sites that may be visited, the most promising first."""
    experience: tuple[str, ...] = ()
    """For a route: sentences on which earlier jobs count, and what they changed."""
    algorithms: tuple[Compared, ...] = ()
    """If the network chooses the algorithm: each algorithm with what is expected of it from now on,
    the chosen one first."""


class PlannedVisit(msgspec.Struct, frozen=True, kw_only=True):
    """One stop of a route."""

    site: SiteId
    dataset: str
    examples: int
    expected_s: float
    """Transfer, training and verification, in seconds."""
    expected_cost_usd: float
    """Expected cost of the data and the site's computing."""
    expected: dict[str, float]
    """Objective to the value expected after the visit."""
    release_to: tuple[str, ...]
    """Jurisdictions into which a model that learned there may travel, as its owner allows."""
    stands_for: int = 0
    """For a round's visit: the number of examples that weights its update: those on which the site
    would train if it were not slow, at most three times a typical site's; 0 means `examples`."""
    alike: bool = False
    """For a round's visit: whether its data set publishes about the same labels as most others."""
    compression: Compression = Compression.NONE
    """For a round's visit: the form in which its result goes to the aggregator; never `auto`."""
    computing_usd: float = 0.0
    """The part of `expected_cost_usd` that pays for computing: only this depends on the time that
    training takes."""
    price_usd_per_hour: float = 0.0
    """Price of that time, as the site stated it at the time of planning."""
    owner: str = ""
    """Who owns the site; empty in events of earlier versions."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A plan from one checkpoint on. Each verification replans, so only its first visit is
    certain."""

    start: Digest | None
    """Model it continues from; none for a fresh model."""
    visits: tuple[PlannedVisit, ...]
    reaches: bool
    """Whether every objective is expected to hold at its end."""
    chance: float = 0.0
    """Estimated probability of that, in [0, 1]."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Visits of a round whose models are merged first, before they are merged with the others."""

    visits: tuple[int, ...]
    """Positions among those of the round."""
    aggregators: tuple[SiteId, ...]
    """Sites of the group, best first."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """Visits at the same time, from one checkpoint, whose models are merged."""

    start: Digest
    visits: tuple[PlannedVisit, ...]
    aggregators: tuple[SiteId, ...]
    """Sites that may merge the models, best first."""
    groups: tuple[Group, ...] = ()
    """Groups of some visits; empty means all are merged at once."""
    enough: int = 0
    """Number of models, including those of late visits, after which it waits for no more; 0 means
    it waits for all."""
    within_s: float | None = None
    """Seconds after which it waits no longer, if a model was made; absent means it waits for
    all."""
    then: tuple[tuple[PlannedVisit, ...], ...] = ()
    """For each of the visits, those that follow it one after another before models are merged;
    empty means none."""

    @property
    def chains(self) -> tuple[tuple[PlannedVisit, ...], ...]:
        """Each of the visits, with those that follow it."""
        then = self.then or ((),) * len(self.visits)
        return tuple((first, *rest) for first, rest in zip(self.visits, then, strict=True))

    algorithm: Algorithm = Algorithm.AUTO
    """`auto`: planned by a version whose rounds all used the intent's algorithm and rule."""
    rule: MergeRule = MergeRule()
    """How they are merged."""


class Relaxation(msgspec.Struct, frozen=True, kw_only=True):
    """A single change to an intent that would make it feasible on its own."""

    field: str
    current: str
    proposed: str
    effect: str


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """A feasibility module's answer: yes, or no with reasons and the smallest relaxations."""

    feasible: bool
    reasons: tuple[str, ...]
    rejections: tuple[Rejection, ...]
    relaxations: tuple[Relaxation, ...]
    route: Route | None = None
    """The route it would take, if there is one."""
    round: Round | None = None
    """Instead, the first of the rounds by which it was judged."""
    could_begin: bool = True
    """Whether the job would make a visit if its owner insisted, although it is not feasible."""
    snapshot_version: int
    rejections_more: int = 0
    """Number of rejections that were left out: for each filter and field, only the nearest are
    included."""
