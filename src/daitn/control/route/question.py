"""The input of MTRCE: the model's location, the measurements so far, and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from daitn.objects.descriptors import ANY
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.merging import Algorithm
from daitn.topology.snapshot import MsDrrt

__all__ = [
    "Believed",
    "PastVisit",
    "RouteQuestion",
    "RouteStart",
    "Spent",
    "steps",
]


@dataclass(frozen=True)
class Believed:
    """A Gaussian belief about a parameter on its unbounded scale."""

    mean: float
    sd: float


class PastVisit(msgspec.Struct, frozen=True, kw_only=True):
    """A visit of this job with the measurements before and after it, per objective."""

    option_id: str
    """`site/dataset`."""
    examples: int
    seconds: float
    """Training only."""
    before: dict[str, float]
    after: dict[str, float]
    standard_error: dict[str, float]
    """Standard error of `after`."""
    by_label: dict[str, dict[str, float]] = {}
    """Values per label for `after`, by objective, if its verifier reported them."""
    transfer_s: float = 0.0
    """Seconds until the model had arrived."""
    overhead_s: float = 0.0
    """Part of the visit besides transfer and training: starting, loading, storing."""
    verify_s: float = 0.0
    """Seconds until all objectives were measured, including transfers to the verifiers."""
    abandoned: bool = False
    """The job later returned to a model that does not include this visit."""
    round: int = 0
    """The round of the job to which it belonged, from 1; 0 means none. `after` is then the round's
    result."""
    algorithm: Algorithm = Algorithm.SEQUENTIAL
    """How the round was merged."""


def steps(history: Sequence[PastVisit]) -> tuple[PastVisit, ...]:
    """The visits; of each round only the last, which has the round's result."""
    following = (*history, None)[1:]
    return tuple(
        one
        for one, then in zip(history, following, strict=True)
        if not one.round or then is None or then.round != one.round
    )


class RouteStart(msgspec.Struct, frozen=True, kw_only=True):
    """A model from which the route may continue."""

    model: Digest | None
    """`None` means a fresh model, initialised at the site of the first visit."""
    size_bytes: int
    """Estimated for a fresh model, which also has to travel after the first visit."""
    holders: tuple[SiteId, ...] = ()
    values: dict[str, float] = {}
    """Objective to its last measured value; if absent, assumed to be chance."""
    visits: tuple[PastVisit, ...] = ()
    """The visits that made it, oldest first."""
    release_to: tuple[str, ...] = (ANY,)
    """Jurisdictions into which it may travel, given all the data it learned from."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What the job has used of its budget."""

    duration_s: float = 0.0
    cost_usd: float = 0.0
    examples: int = 0


@dataclass(frozen=True)
class RouteQuestion:
    """Everything a route decision depends on."""

    intent: TrainingIntent
    topology: MsDrrt
    flops_per_example: float
    """Per training example, forward and backward."""
    checkpoints: tuple[RouteStart, ...]
    """The latest model first; the best one second if it is different."""
    history: tuple[PastVisit, ...] = ()
    """Every visit of the job, including abandoned ones, oldest first."""
    spent: Spent = field(default_factory=Spent)
    verify_s: float | None = None
    """Seconds to measure all objectives after a visit, as last measured, without the transfer.
    `None` means this job has measured nothing yet, so that earlier jobs must tell
    (`experience`)."""
    cut_off: frozenset[tuple[SiteId, SiteId]] = frozenset()
    """Pairs of a site and a holder from which it could not fetch a model of this job."""
    excluded: tuple[SiteId, ...] = ()
    """Sites that failed this job: not visited again."""
    here: SiteId | None = None
    """Where the model arrived on its own: it stays unless elsewhere is clearly better."""
    insisted: bool = False
    """The owner wants as much of a pinned route as possible: it is judged stop by stop."""
    later: tuple[SiteId, ...] = ()
    """Sites where the route cannot begin now because they refuse the model; it may come later."""
    experience: Mapping[str, Believed] = field(default_factory=dict)
    """What earlier jobs taught about this recipe and these data sets, see `experience`."""
    merges: bool = False
    """Whether several sites can train the latest model, and one of them can merge the results."""
    busy: frozenset[str] = frozenset()
    """Ids of data sets that still train for an earlier round, or whose late models the next one
    merges."""
    unfit: frozenset[Algorithm] = frozenset()
    """Algorithms that the recipe does not support, as it says or as was found."""
    shortfalls: tuple[float, ...] = ()
    """Shortfalls of all checkpoints, oldest first: before any training and after each visit or
    round."""
    behind: int = 0
    """Entries of the lineage behind the latest model."""
    begun: Mapping[str, Believed] = field(default_factory=dict)
    """The belief without earlier jobs: the recipe's own estimates."""
    past_jobs: int = 0
    """Number of earlier jobs behind `experience`."""
    now_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the latest model is measured to reach every target."""
        latest = self.checkpoints[0].values
        return all(latest.get(o.name, -1.0) >= o.at_least for o in self.intent.objectives)

    @property
    def snapshot_version(self) -> int:
        return self.topology.snapshot.version
