"""The state of a job, as derived from its events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from daitn.objects.decisions import Assessment, Decision, PlannedVisit, Route
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Checkpoint, JobState, VisitView, WorkNeeds
from daitn.objects.lineage import Entry, Merge, Verification, Visit, descent
from daitn.objects.merging import Algorithm, MergeRule
from daitn.objects.messages import VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder

__all__ = [
    "MAX_FAILURES",
    "MAX_LOSSES",
    "MAX_WITHOUT_PROGRESS",
    "Contribution",
    "Job",
    "ModelCandidate",
    "Outstanding",
    "RoundInProgress",
]

MAX_FAILURES = 2
"""Failures at a site before the job goes elsewhere: one may be bad luck."""
MAX_LOSSES = 3
"""Losses of a site during work, without finished work between, before the job goes elsewhere: a
site may restart once or twice, but one that comes and goes finishes nothing."""
MAX_WITHOUT_PROGRESS = 40
"""Consecutive pieces of work without a measured model before a job gives up: whatever the cause,
continuing costs others and gains nothing."""
_HISTORY_LENGTH = 30
"""State transitions kept in a job's history."""


@dataclass(frozen=True)
class Outstanding:
    """A piece of work that a site has and has not reported on."""

    site: SiteId
    work: Work
    since_s: float = 0.0
    """When the work was given."""


@dataclass(frozen=True)
class Contribution:
    """A visit that is done, and its model."""

    visit: Visit
    entry: Digest
    """Its lineage entry."""
    model: ModelRef
    cost_usd: float
    release_to: tuple[str, ...]
    """Where the data's owner lets models that learned there travel."""


@dataclass
class RoundInProgress:
    """Sites that train the same model, and what they have made of it."""

    base: Checkpoint
    algorithm: Algorithm
    rule: MergeRule
    aggregators: list[SiteId]
    """Sites that may merge, best first; the first one does."""
    stops: dict[VisitId, PlannedVisit]
    made: list[Contribution] = field(default_factory=list)


@dataclass
class ModelCandidate:
    """A model that is being measured."""

    model: ModelRef
    base: Checkpoint | None
    """The checkpoint at which its visit started; none for a fresh or imported model."""
    visits: tuple[Contribution, ...]
    """Since then: one, or those of a round; none of a fresh or imported model."""
    release_to: tuple[str, ...]
    """Jurisdictions into which it may travel."""
    parents: tuple[Digest, ...]
    """The lineage entry of the visit or merge that made it."""
    made_at: SiteId | None = None
    """The site that made it; none for weights supplied by the owner."""
    round: int = 0
    """Which round of the job made it, from 1; 0: none."""
    algorithm: Algorithm = Algorithm.SEQUENTIAL
    merged: Merge | None = None
    """Of a round with several models."""
    measured: dict[ObjectiveName, Verification] = field(default_factory=dict)
    unreached: set[SiteId] = field(default_factory=set)
    """Verification units that could not fetch it from any holder."""
    refused: set[SiteId] = field(default_factory=set)
    """Verification units whose test set's policy refuses to measure it now."""
    entries: list[Digest] = field(default_factory=list)


@dataclass
class Job:
    """State of one job. Only `daitn.control.jobs.machine` changes it."""

    id: JobId
    intent: TrainingIntent
    needs: WorkNeeds
    start: ModelRef | None
    insist: bool
    submitted_at_s: float
    order: SignedOrder | None = None
    """The intent as its owner signed it."""
    at_s: float = 0.0
    """Time of the latest recorded event."""
    state: JobState = JobState.SUBMITTED
    detail: str = ""
    ended_at_s: float | None = None
    error: ErrorReport | None = None
    assessment: Assessment | None = None
    decision: Decision | None = None
    planned: Route | None = None
    stop: PlannedVisit | None = None
    """The visit in progress."""
    base: Checkpoint | None = None
    """The checkpoint at which the visit in progress started."""
    round: RoundInProgress | None = None
    moments: ModelRef | None = None
    """What the outer step of the last merge remembers."""
    candidate: ModelCandidate | None = None
    outstanding: dict[VisitId, Outstanding] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    made: list[VisitView] = field(default_factory=list)
    lineage: list[Entry] = field(default_factory=list)
    verifications: dict[ObjectiveName, Verification] = field(default_factory=dict)
    """Per objective, for the best checkpoint."""
    failures: dict[SiteId, int] = field(default_factory=dict)
    """Failed visits per site."""
    verifier_failures: dict[SiteId, int] = field(default_factory=dict)
    losses: dict[SiteId, int] = field(default_factory=dict)
    """Losses of a site during work since it last finished any."""
    interrupted: dict[SiteId, VisitWork] = field(default_factory=dict)
    """The latest visit to each site that was lost during it."""
    problems: dict[SiteId, str] = field(default_factory=dict)
    """The latest problem at a site."""
    cut_off: set[tuple[SiteId, SiteId]] = field(default_factory=set)
    """Site and holder: the site could not fetch a model from that holder."""
    without_progress: int = 0
    """Consecutive pieces of work without a measured model."""
    spent_usd: float = 0.0
    spent_examples: int = 0
    """Includes visits whose model was lost before it was measured."""
    verify_s: float | None = None
    """Duration of the last measurement of all objectives, without the transfer."""
    waits: int = 0
    """Waits since it last made progress."""
    stuck_since_s: float | None = None
    """Start of the first of those waits."""
    works: int = 0
    wake_at_s: float | None = None
    met: dict[SiteId, NodeDescriptor] = field(default_factory=dict)
    """Sites as an agent found them on its last visit."""
    history: deque[str] = field(default_factory=lambda: deque(maxlen=_HISTORY_LENGTH))

    @property
    def deadline_at_s(self) -> float | None:
        """The intent's deadline, seconds since the epoch."""
        limit_s = self.intent.budget.duration_s
        return None if limit_s is None else self.submitted_at_s + limit_s

    @property
    def excluded(self) -> tuple[SiteId, ...]:
        """Sites that failed this job, or were lost to it, too often to be used again."""
        failed = {site for site, times in self.failures.items() if times >= MAX_FAILURES}
        lost = {site for site, times in self.losses.items() if times >= MAX_LOSSES}
        return tuple(sorted(failed | lost))

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint with the smallest shortfall; the later one on a tie."""
        if not self.checkpoints:
            return None
        return min(reversed(self.checkpoints), key=self.shortfall)

    @property
    def learned(self) -> bool:
        """Whether the best checkpoint learned anything, in this job or before it."""
        best = self.best
        if best is None:
            return False
        return self.start is not None or any(self.made[at].work for at in best.visits)

    @property
    def latest(self) -> Checkpoint | None:
        return self.checkpoints[-1] if self.checkpoints else None

    def shortfall(self, checkpoint: Checkpoint) -> float:
        """Sum over the objectives of the checkpoint's distance below the target."""
        return sum(
            max(0.0, o.at_least - checkpoint.values[ObjectiveName(o.name)])
            for o in self.intent.objectives
        )

    @property
    def between_rounds(self) -> tuple[ModelRef, ...]:
        """Models that a round needs, besides checkpoints."""
        made = [one.model for one in self.round.made] if self.round else []
        return tuple([*made, self.moments] if self.moments else made)

    @property
    def rounds(self) -> int:
        """Rounds that were measured."""
        return max((made.round for made in self.made), default=0)

    def next_visit_id(self) -> VisitId:
        """Ids depend on the job's history alone, so a replay gives the same ones."""
        self.works += 1
        return VisitId(f"{self.id}.{self.works}")

    def visit_work(self, stop: PlannedVisit, base: Checkpoint | None) -> VisitWork:
        """The work of a stop: training from `base`, or making the fresh model if there is none.

        A site that was lost during the same work gets that again, and goes on with it.
        """
        before = self.interrupted.pop(stop.site, None)
        if before is not None and _is_again(before, stop, base):
            return before
        return VisitWork(
            visit=self.next_visit_id(),
            job=self.id,
            recipe=self.intent.model.recipe,
            config=self.intent.model.config,
            seed=self.intent.model.seed + self.works,
            owner=self.intent.owner,
            dataset=stop.dataset,
            examples=stop.examples if base else 0,
            model=base.model if base else None,
            previous=base.entries if base else (),
            purpose=self.intent.purpose,
            order=self.order,
            lineage=self.descent_of(base.model) if base else (),
        )

    def verify_work(self, objective: ObjectiveName, candidate: ModelCandidate) -> VerifyWork:
        """The work of measuring one objective."""
        wanted = self.intent.objective(objective)
        return VerifyWork(
            visit=self.next_visit_id(),
            job=self.id,
            recipe=self.intent.model.recipe,
            config=self.intent.model.config,
            topic=wanted.topic,
            metric=wanted.metric,
            model=candidate.model,
            previous=candidate.parents,
            owner=self.intent.owner,
            purpose=self.intent.purpose,
            order=self.order,
            lineage=self.descent_of(candidate.model),
        )

    def descent_of(self, *models: ModelRef) -> tuple[Entry, ...]:
        """What proves to a site that models came of the order."""
        return descent(self.lineage, *(m.manifest for m in models)) if self.order else ()


def _is_again(work: VisitWork, stop: PlannedVisit, base: Checkpoint | None) -> bool:
    if base is None:
        return work.model is None and work.dataset == stop.dataset
    asked = (stop.dataset, stop.examples, base.model, base.entries)
    return (work.dataset, work.examples, work.model, work.previous) == asked
