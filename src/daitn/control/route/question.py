"""The input of MTRCE: where the model is, what was measured so far, what may be spent."""

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
    """Training alone."""
    before: dict[str, float]
    after: dict[str, float]
    standard_error: dict[str, float]
    """Of `after`."""
    by_label: dict[str, dict[str, float]] = {}
    """Of `after`: objective to label to value, where its verifier reported them."""
    transfer_s: float = 0.0
    """Until the model had arrived."""
    overhead_s: float = 0.0
    """Part of the visit beside transfer and training: starting, loading, storing."""
    verify_s: float = 0.0
    """Until all objectives were measured, including transfers to the verifiers."""
    abandoned: bool = False
    """The job later returned to a model that does not include this visit."""
    round: int = 0
    """Which round of the job it was part of, from 1; 0: none. `after` is what that reached."""
    algorithm: Algorithm = Algorithm.SEQUENTIAL
    """How the round was merged."""


def steps(history: Sequence[PastVisit]) -> tuple[PastVisit, ...]:
    """The visits, of each round only the last: it tells what the round reached."""
    following = (*history, None)[1:]
    return tuple(
        one
        for one, then in zip(history, following, strict=True)
        if not one.round or then is None or then.round != one.round
    )


class RouteStart(msgspec.Struct, frozen=True, kw_only=True):
    """A model from which the route may continue."""

    model: Digest | None
    """None: a fresh model, initialised wherever the first visit is."""
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
    """The latest model first; the best one second if it is another."""
    history: tuple[PastVisit, ...] = ()
    """Every visit of the job, including abandoned ones, oldest first."""
    spent: Spent = field(default_factory=Spent)
    verify_s: float | None = None
    """Seconds to measure all objectives after a visit, as last measured, without the transfer.
    None: this job has measured nothing yet, so earlier jobs must tell (`experience`)."""
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
    """Whether several sites can train the latest model, and one of them merge what they made."""
    busy: frozenset[str] = frozenset()
    """Data sets, by id, that train for an earlier round still, or whose late models the next one
    merges."""
    unfit: frozenset[Algorithm] = frozenset()
    """Algorithms by which the recipe does not train, as it says or was found."""
    shortfalls: tuple[float, ...] = ()
    """Of all checkpoints, oldest first: before any training and after each visit or round."""
    behind: int = 0
    """Entries of the lineage behind the latest model."""
    begun: Mapping[str, Believed] = field(default_factory=dict)
    """What would be believed without earlier jobs: the recipe's own estimates."""
    past_jobs: int = 0
    """Number of earlier jobs that `experience` is from."""
    now_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the latest model is measured to reach every target."""
        latest = self.checkpoints[0].values
        return all(latest.get(o.name, -1.0) >= o.at_least for o in self.intent.objectives)

    @property
    def snapshot_version(self) -> int:
        return self.topology.snapshot.version
