"""The state of a job, as derived from its events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from daitn.control.value.measuring import Valuing
from daitn.objects.accounts import LedgerEntry
from daitn.objects.agents import agent_name
from daitn.objects.decisions import Assessment, Decision, PlannedVisit, Route
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import Budget, TrainingIntent
from daitn.objects.jobs import Checkpoint, JobState, LeftModel, VisitView, WorkNeeds
from daitn.objects.lineage import Entry, Merge, Verification, Visit, descent
from daitn.objects.merging import Algorithm, LocalRule, MergeRule
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder

__all__ = [
    "MAX_FAILURES",
    "MAX_LOSSES",
    "MAX_WITHOUT_PROGRESS",
    "Contribution",
    "GroupInProgress",
    "Job",
    "ModelCandidate",
    "Outstanding",
    "RoundInProgress",
    "moments_of",
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
    before: Contribution | None = None
    """The visit in the same round that its model came from; none: it started from the checkpoint.
    """

    @property
    def chain(self) -> tuple[Contribution, ...]:
        """All of the round that are in its model, in their order."""
        return (*(self.before.chain if self.before else ()), self)

    @property
    def share(self) -> int:
        """The examples for which its model counts in the round."""
        return sum(one.visit.share for one in self.chain)


def moments_of(merge: Merge) -> ModelRef:
    """What a merge's outer step remembers, which it must have left."""
    return ModelRef(manifest=merge.moments, size_bytes=merge.moments_bytes, holders=(merge.site,))


@dataclass
class GroupInProgress:
    """Visits of a round whose models are merged first."""

    visits: frozenset[VisitId]
    aggregators: list[SiteId]
    """Sites of the group that may merge, best first."""
    merging: VisitId | None = None
    """The work of merging them."""
    of: tuple[Contribution, ...] = ()
    """What is merged there, or was."""
    merged: tuple[Digest, Merge, ModelRef] | None = None
    """What came of it: entry, fact and model."""


@dataclass
class RoundInProgress:
    """Sites that train the same model, and what they have made of it."""

    base: Checkpoint
    algorithm: Algorithm
    rule: MergeRule
    aggregators: list[SiteId]
    """Sites that may merge, best first; the first one does."""
    stops: dict[VisitId, PlannedVisit]
    then: dict[VisitId, tuple[PlannedVisit, ...]]
    """What follows a visit, before models are merged."""
    groups: list[GroupInProgress] = field(default_factory=list)
    enough: int = 0
    within_s: float | None = None
    """Both as of a `Round`."""
    began_at_s: float = 0.0
    took_s: dict[VisitId, float] = field(default_factory=dict)
    """From its beginning to each report."""
    due: bool = False
    """Whether it waits for nobody any more."""
    latest: dict[VisitId, Contribution] = field(default_factory=dict)
    """What a visit starts from, if not from the checkpoint; what it made, once it is done."""
    made: list[Contribution] = field(default_factory=list)
    """What is merged."""


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
    parts: tuple[Merge, ...] = ()
    """The merges of groups before that."""
    measured: dict[ObjectiveName, Verification] = field(default_factory=dict)
    unreached: set[SiteId] = field(default_factory=set)
    """Verification units that could not fetch it from any holder."""
    refused: set[SiteId] = field(default_factory=set)
    """Verification units whose test set's policy refuses to measure it now."""
    entries: list[Digest] = field(default_factory=list)


@dataclass
class Job:
    """State of one job. Only `daitn.control.jobs.machine`, and what it calls, changes it."""

    id: JobId
    intent: TrainingIntent
    needs: WorkNeeds
    start: ModelRef | None
    insist: bool
    submitted_at_s: float
    order: SignedOrder | None = None
    """The intent as its owner signed it."""
    walker: int = 0
    """Which of the models that travel for the job this one is about."""
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
    meets: LeftModel | None = None
    """What another walker left where the visit in progress is."""
    round: RoundInProgress | None = None
    overdue: dict[VisitId, PlannedVisit] = field(default_factory=dict)
    """Outstanding visits that their round did not wait for."""
    late: list[Contribution] = field(default_factory=list)
    """What such visits made, for the next merge."""
    moments: ModelRef | None = None
    """What the outer step of the last merge remembers."""
    own: dict[tuple[SiteId, str], ModelRef] = field(default_factory=dict)
    """By site and data set: what was made there in the last round, for algorithms with variates."""
    unfit: set[Algorithm] = field(default_factory=set)
    """Algorithms that the network chose, by whose rules the recipe does not merge."""
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
    entries: list[LedgerEntry] = field(default_factory=list)
    """What its facts cost whom, for the ledger."""
    works: int = 0
    valuing: Valuing | None = None
    """Of an ended job, the measuring of its data's value."""
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
    def budget(self) -> Budget:
        """What it may spend: the intent's, or a walker's part of it. All have the same time."""
        whole, walkers = self.intent.budget, self.intent.training.travelling
        if walkers == 1:
            return whole
        return msgspec.structs.replace(
            whole,
            cost_usd=None if whole.cost_usd is None else whole.cost_usd / walkers,
            examples=None if whole.examples is None else whole.examples // walkers,
        )

    @property
    def pool_usd(self) -> float:
        """What owners of data share at its end, besides their prices."""
        stated = self.intent.training.credits_usd
        return 0.0 if stated is msgspec.UNSET else stated

    @property
    def open(self) -> bool:
        """Whether there is anything to do for it: it has not ended, or its data is being valued."""
        return not self.state.final or (self.valuing is not None and not self.valuing.ended)

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
    def unmerged(self) -> tuple[Contribution, ...]:
        """What sites made for the round in progress, and late for the next."""
        now = self.round
        return (*now.made, *now.latest.values(), *self.late) if now else tuple(self.late)

    @property
    def between_rounds(self) -> tuple[ModelRef, ...]:
        """Models that a round needs, besides checkpoints."""
        made = self.unmerged
        starts = {one.chain[0].visit.model_in for one in made}
        kept = [one.model for one in made]
        groups = self.round.groups if self.round else []
        kept += [group.merged[2] for group in groups if group.merged]
        kept += [one.model for one in self.checkpoints if one.model.manifest in starts]
        kept += self.own.values()
        return tuple([*kept, self.moments] if self.moments else kept)

    @property
    def busy(self) -> frozenset[str]:
        """`site/dataset` of what still trains for an earlier round, or has made what the next merge
        takes."""
        late = {f"{one.visit.site}/{one.visit.dataset}" for one in self.late}
        return frozenset(late | {f"{stop.site}/{stop.dataset}" for stop in self.overdue.values()})

    @property
    def under_way(self) -> tuple[PlannedVisit, ...]:
        """Visits that sites have not reported on, and those that follow them in their round."""
        stops, then = (self.round.stops, self.round.then) if self.round else ({}, {})
        known = {**stops, **self.overdue}
        given = [visit for visit, o in self.outstanding.items() if isinstance(o.work, VisitWork)]
        found = [known.get(visit, self.stop) for visit in given]
        return (*(stop for stop in found if stop), *(one for rest in then.values() for one in rest))

    @property
    def rounds(self) -> int:
        """Rounds that were measured."""
        return max((made.round for made in self.made), default=0)

    def next_visit_id(self) -> VisitId:
        """Ids depend on the job's history alone, so a replay gives the same ones."""
        self.works += 1
        return VisitId(f"{agent_name(self.id, self.walker)}.{self.works}")

    def visit_work(
        self,
        stop: PlannedVisit,
        base: Checkpoint | None,
        algorithm: Algorithm | None = None,
        after: Contribution | None = None,
    ) -> VisitWork:
        """The work of a stop: training from `base`, or making the fresh model if there is none.
        `algorithm`: of its round; none: it is of no round. `after`: the visit of the same round
        from which it goes on.

        A site that was lost during the same work gets that again, and goes on with it.
        """
        before = self.interrupted.pop(stop.site, None)
        local = self.intent.training.local_in(algorithm)
        if before is not None and after is None and _is_again(before, stop, base, local):
            return before
        own = self.own.get((stop.site, stop.dataset)) if base else None
        model, previous = (base.model, base.entries) if base else (None, ())
        if after is not None:
            model, previous = after.model, (after.entry,)
        given = [each for each in (model, own) if each is not None]
        # Only models that began alike can be averaged.
        alike = self.intent.training.travelling > 1
        return VisitWork(
            visit=self.next_visit_id(),
            job=self.id,
            recipe=self.intent.model.recipe,
            config=self.intent.model.config,
            seed=self.intent.model.seed + (1 if alike and base is None else self.works),
            owner=self.intent.owner,
            dataset=stop.dataset,
            examples=stop.examples if base else 0,
            stands_for=stop.stands_for if base else 0,
            compression=stop.compression,
            model=model,
            previous=previous,
            purpose=self.intent.purpose,
            privacy=self.intent.training.privacy,
            secure=self.intent.training.secure_aggregation and base is not None,
            order=self.order,
            lineage=self.descent_of(*given),
            local=local,
            own=own,
        )

    def merge_work(
        self,
        base: ModelRef,
        trained: tuple[ModelRef, ...],
        shares: tuple[int, ...],
        rule: MergeRule,
        previous: tuple[Digest, ...],
        moments: ModelRef | None,
        *,
        part: bool = False,
        starts: tuple[ModelRef, ...] = (),
        behind: tuple[int, ...] = (),
    ) -> MergeWork:
        """The work of merging models; all is as of a `MergeWork`."""
        return MergeWork(
            visit=self.next_visit_id(),
            job=self.id,
            recipe=self.intent.model.recipe,
            config=self.intent.model.config,
            seed=self.intent.model.seed + self.works,
            owner=self.intent.owner,
            base=base,
            trained=trained,
            shares=shares,
            part=part,
            starts=starts,
            behind=behind,
            rule=rule,
            previous=previous,
            moments=moments,
            secure=self.intent.training.secure_aggregation,
            purpose=self.intent.purpose,
            order=self.order,
            lineage=self.descent_of(base, *trained, *starts),
        )

    def verify_work(
        self,
        objective: ObjectiveName,
        model: ModelRef,
        made_by: tuple[Digest, ...],
        lineage: tuple[Entry, ...] | None = None,
    ) -> VerifyWork:
        """The work of measuring one objective of a model, which the entries `made_by` left.
        `lineage`: how it came about; none: as the job's own says."""
        wanted = self.intent.objective(objective)
        return VerifyWork(
            visit=self.next_visit_id(),
            job=self.id,
            recipe=self.intent.model.recipe,
            config=self.intent.model.config,
            topic=wanted.topic,
            metric=wanted.metric,
            model=model,
            previous=made_by,
            owner=self.intent.owner,
            purpose=self.intent.purpose,
            order=self.order,
            lineage=self.descent_of(model) if lineage is None else lineage,
        )

    def descent_of(self, *models: ModelRef) -> tuple[Entry, ...]:
        """What proves to a site that models came of the order."""
        return descent(self.lineage, *(m.manifest for m in models)) if self.order else ()


def _is_again(
    work: VisitWork, stop: PlannedVisit, base: Checkpoint | None, local: LocalRule
) -> bool:
    if base is None:
        return work.model is None and work.dataset == stop.dataset
    form = (work.stands_for, work.compression, work.local) == (
        stop.stands_for,
        stop.compression,
        local,
    )
    asked = (stop.dataset, stop.examples, base.model, base.entries)
    return form and (work.dataset, work.examples, work.model, work.previous) == asked
