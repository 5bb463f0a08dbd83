"""The state of a job, as derived from its events."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from fractions import Fraction

import msgspec

from daitn.control.accounting.amounts import exact
from daitn.control.value.measuring import Valuing
from daitn.objects.accounts import LedgerEntry
from daitn.objects.agents import agent_name
from daitn.objects.decisions import Assessment, Decision, PlannedVisit, Route
from daitn.objects.descriptors import ANY, NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import Budget, TrainingIntent
from daitn.objects.jobs import Checkpoint, JobState, LeftModel, Setback, VisitView, WorkNeeds
from daitn.objects.lineage import Entry, Merge, Verification, Visit, descent
from daitn.objects.merging import Algorithm, LocalRule, MergeRule
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.quorum import Disagreement

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
"""Losses of a site during work, without finished work in between, before the job goes elsewhere: a
site may restart once or twice, but one that comes and goes finishes nothing."""
MAX_WITHOUT_PROGRESS = 40
"""Consecutive pieces of work without a measured model before a job gives up: whatever the cause,
continuing costs others and gains nothing."""
_HISTORY_LENGTH = 30
"""State transitions kept in a job's history."""


@dataclass(frozen=True)
class Outstanding:
    """A piece of work that a site has not yet reported on."""

    site: SiteId
    work: Work
    since_s: float = 0.0
    """When the work was assigned."""
    price_usd_per_hour: float = 0.0
    """Price of merging or measuring at the time of the order. For a visit, the plan states the
    price."""
    expected_s: float = 0.0
    """What it is expected to take, as far as that is known; else 0."""


@dataclass(frozen=True)
class Contribution:
    """A finished visit, and its model."""

    visit: Visit
    entry: Digest
    """Its lineage entry."""
    model: ModelRef
    cost_usd: float
    release_to: tuple[str, ...]
    """Where models that learned there may travel."""
    alike: bool = False
    """Whether its data set publishes about the same labels as most others of the round."""
    before: Contribution | None = None
    """The visit in the same round from whose model it started; none if it started from the
    checkpoint."""

    @property
    def chain(self) -> tuple[Contribution, ...]:
        """All visits of the round that are in its model, in order."""
        return (*(self.before.chain if self.before else ()), self)

    @property
    def share(self) -> int:
        """Number of examples that weights its model in the round."""
        return sum(one.visit.share for one in self.chain)


def moments_of(merge: Merge) -> ModelRef:
    """State of a merge's outer step, which it must have left."""
    return ModelRef(manifest=merge.moments, size_bytes=merge.moments_bytes, holders=(merge.site,))


@dataclass
class GroupInProgress:
    """Visits of a round whose models are merged first."""

    visits: frozenset[VisitId]
    aggregators: list[SiteId]
    """Sites of the group that may merge, best first."""
    merging: VisitId | None = None
    """The assigned merge."""
    of: tuple[Contribution, ...] = ()
    """What is or was merged there."""
    merged: tuple[Digest, Merge, ModelRef] | None = None
    """The result: entry, fact and model."""


@dataclass
class RoundInProgress:
    """Sites that train the same model, and their results so far."""

    base: Checkpoint
    algorithm: Algorithm
    rule: MergeRule
    aggregators: list[SiteId]
    """Sites that may merge, best first; the first one merges."""
    stops: dict[VisitId, PlannedVisit]
    then: dict[VisitId, tuple[PlannedVisit, ...]]
    """The visits that follow a visit before models are merged."""
    groups: list[GroupInProgress] = field(default_factory=list)
    enough: int = 0
    within_s: float | None = None
    """Both as in `Round`."""
    began_at_s: float = 0.0
    prices_usd_per_hour: dict[SiteId, float] = field(default_factory=dict)
    """Prices of computing at its sites, as in its plan."""
    took_s: dict[VisitId, float] = field(default_factory=dict)
    """Seconds from its beginning to each report."""
    due: bool = False
    """Whether it no longer waits for anybody."""
    latest: dict[VisitId, Contribution] = field(default_factory=dict)
    """Start model of a visit, if not the checkpoint; its result, once it is done."""
    made: list[Contribution] = field(default_factory=list)
    """The models to merge."""
    unable: dict[SiteId, ErrorReport] = field(default_factory=dict)
    """Sites that failed to merge these: at fault if another site can."""


@dataclass
class ModelCandidate:
    """A model that is being measured."""

    model: ModelRef
    base: Checkpoint | None
    """The checkpoint at which its visit started; none for a fresh or imported model."""
    visits: tuple[Contribution, ...]
    """Since then: one, or those of a round; none for a fresh or imported model."""
    release_to: tuple[str, ...]
    """Jurisdictions into which it may travel."""
    parents: tuple[Digest, ...]
    """The lineage entry of the visit or merge that made it."""
    made_at: SiteId | None = None
    """The site that made it; none for weights supplied by the owner."""
    round: int = 0
    """The round of the job that made it, from 1; 0 means none."""
    algorithm: Algorithm = Algorithm.SEQUENTIAL
    merged: Merge | None = None
    """For a round with several models."""
    parts: tuple[Merge, ...] = ()
    """The merges of groups before that."""
    received: dict[ObjectiveName, list[Verification]] = field(default_factory=dict)
    """Measurements of each objective by verifiers."""
    measured: dict[ObjectiveName, Verification] = field(default_factory=dict)
    """The measurement that counts, once enough of them agree."""
    unreached: set[SiteId] = field(default_factory=set)
    """Verification units that could not fetch it from any holder."""
    failed: set[SiteId] = field(default_factory=set)
    """Verification units that failed at it once, which may be bad luck."""
    unable: dict[SiteId, ErrorReport] = field(default_factory=dict)
    """Verification units that say it cannot be measured."""
    refused: set[SiteId] = field(default_factory=set)
    """Verification units whose test set's policy refuses to measure it now."""
    entries: list[Digest] = field(default_factory=list)

    @property
    def asked_in_vain(self) -> frozenset[SiteId]:
        """Verification units that have said they cannot measure it."""
        return frozenset((*self.unreached, *self.refused, *self.unable))


@dataclass
class Job:
    """State of one job. Only `daitn.control.jobs.machine` and the functions that it calls change
    it."""

    id: JobId
    intent: TrainingIntent
    needs: WorkNeeds
    start: ModelRef | None
    insist: bool
    submitted_at_s: float
    order: SignedOrder | None = None
    """The intent as signed by its owner."""
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
    """The model that another walker left at the site of the current visit."""
    round: RoundInProgress | None = None
    overdue: dict[VisitId, PlannedVisit] = field(default_factory=dict)
    """Outstanding visits for which their round did not wait."""
    late: list[Contribution] = field(default_factory=list)
    """Results of such visits, for the next merge."""
    moments: ModelRef | None = None
    """State of the outer step after the last merge."""
    own: dict[tuple[SiteId, str], ModelRef] = field(default_factory=dict)
    """By site and data set: the model made there in the last round, for algorithms with
    variates."""
    unfit: set[Algorithm] = field(default_factory=set)
    """Algorithms chosen by the network by whose rules the recipe does not merge."""
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
    disagreements: list[Disagreement] = field(default_factory=list)
    """Measurements that a quorum of verifiers contradicts."""
    losses: dict[SiteId, int] = field(default_factory=dict)
    """Losses of a site during work since it last finished any."""
    interrupted: dict[SiteId, VisitWork] = field(default_factory=dict)
    """The latest visit to each site that was lost during it."""
    problems: dict[SiteId, str] = field(default_factory=dict)
    """The latest problem at a site."""
    setbacks: dict[tuple[SiteId, str], Setback] = field(default_factory=dict)
    """The latest problems of all sites, by site and reason, latest last."""
    suspects: set[SiteId] = field(default_factory=set)
    """Sites of which at least one spoiled what all of them made together: see `suspecting`."""
    apart: set[SiteId] = field(default_factory=set)
    """Sites of chains whose model was faulty, which now train in no chain."""
    distrusted: dict[SiteId, set[SiteId]] = field(default_factory=dict)
    """Aggregators of faulty models, or that rejected some, with the sites whose models they
    rejected. They merge only if no other can, and one owner's word counts once against a site."""
    owners: dict[SiteId, str] = field(default_factory=dict)
    """Who owns the sites that were to train."""
    objections: dict[SiteId, ErrorReport] = field(default_factory=dict)
    """What sites say that only the model's owner can mend."""
    barren: dict[SiteId, ErrorReport] = field(default_factory=dict)
    """Sites whose fresh models could not be measured."""
    unconfirmed: dict[SiteId, list[SiteId]] = field(default_factory=dict)
    """By verifier: the makers of models that it alone could not measure, since it last measured."""
    once_excused: set[SiteId] = field(default_factory=set)
    """Verifiers whose such claims were taken back."""
    cut_off: set[tuple[SiteId, SiteId]] = field(default_factory=set)
    """Site and holder: the site could not fetch a model from that holder."""
    without_progress: int = 0
    """Consecutive pieces of work without a measured model."""
    spent_usd: float = 0.0
    checked_usd: float = 0.0
    """Part of it: merging and measuring since the last checkpoint."""
    check_usd: float = 0.0
    """What these cost for the last checkpoint: as much is reserved for the next one."""
    spent_examples: int = 0
    """Includes visits whose model was lost before it was measured."""
    verify_s: float | None = None
    """Duration of the last measurement of all objectives, without the transfer."""
    waits: int = 0
    """Waits since it last made progress."""
    stuck_since_s: float | None = None
    """Start of the first of those waits."""
    entries: list[LedgerEntry] = field(default_factory=list)
    """Ledger entries of its facts."""
    works: int = 0
    valuing: Valuing | None = None
    """For an ended job: the measurement of its data's value."""
    wake_at_s: float | None = None
    met: dict[SiteId, NodeDescriptor] = field(default_factory=dict)
    """Sites as a travelling model found them on its last visit."""
    release_to: tuple[str, ...] = (ANY,)
    """Jurisdictions into which the start model may travel."""
    idle_s: float = 0.0
    """How long it had been ended before it was resumed."""
    resumed_from: Digest | None = None
    """Its best model when it was last resumed, which is published and may be deployed."""
    untrained: dict[ObjectiveName, float] = field(default_factory=dict)
    """Measurements of its first checkpoint."""
    history: deque[str] = field(default_factory=lambda: deque(maxlen=_HISTORY_LENGTH))

    @property
    def deadline_at_s(self) -> float | None:
        """The intent's deadline, seconds since the epoch."""
        limit_s = self.intent.budget.duration_s
        return None if limit_s is None else self.began_at_s + limit_s

    @property
    def began_at_s(self) -> float:
        """When it would have been submitted if it had never been idle, in seconds since the
        epoch."""
        return self.submitted_at_s + self.idle_s

    @property
    def budget(self) -> Budget:
        """Its budget: the intent's, or a walker's share of it. The time limit applies to each."""
        whole, walkers = self.intent.budget, self.intent.training.travelling
        if walkers == 1:
            return whole
        return msgspec.structs.replace(
            whole,
            cost_usd=None if whole.cost_usd is None else whole.cost_usd / walkers,
            examples=None if whole.examples is None else whole.examples // walkers,
        )

    @property
    def left_usd(self) -> Fraction | None:
        """The money left, minus the expected cost of visits in progress; none if there is no
        limit."""
        if self.budget.cost_usd is None:
            return None
        expected = sum((exact(stop.expected_cost_usd) for stop in self.under_way), Fraction(0))
        return exact(self.budget.cost_usd) - exact(self.spent_usd) - expected

    @property
    def pool_usd(self) -> float:
        """The amount that data owners share at its end, in addition to their prices."""
        stated = self.intent.training.credits_usd
        return 0.0 if stated is msgspec.UNSET else stated

    @property
    def open(self) -> bool:
        """Whether anything remains to be done: it has not ended, or its data is being valued."""
        return not self.state.final or (self.valuing is not None and not self.valuing.ended)

    @property
    def excluded(self) -> tuple[SiteId, ...]:
        """Sites that failed this job, or were lost to it, too often to be used again."""
        failed = {site for site, times in self.failures.items() if times >= MAX_FAILURES}
        lost = {site for site, times in self.losses.items() if times >= MAX_LOSSES}
        return tuple(sorted(failed | lost))

    @property
    def barred(self) -> frozenset[SiteId]:
        """Verifiers that failed this job, or were contradicted, too often to be used again."""
        failures = Counter(self.verifier_failures)
        failures.update(one.site for one in self.disagreements)
        return frozenset(site for site, times in failures.items() if times >= MAX_FAILURES)

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
        """Results of sites for the current round, and late ones for the next."""
        now = self.round
        return (*now.made, *now.latest.values(), *self.late) if now else tuple(self.late)

    @property
    def between_rounds(self) -> tuple[ModelRef, ...]:
        """Models that a round needs in addition to checkpoints."""
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
        """`site/dataset` of all that still train for an earlier round, or whose results the next
        merge takes."""
        late = {f"{one.visit.site}/{one.visit.dataset}" for one in self.late}
        return frozenset(late | {f"{stop.site}/{stop.dataset}" for stop in self.overdue.values()})

    @property
    def under_way(self) -> tuple[PlannedVisit, ...]:
        """Visits not yet reported, and those that follow them in their round."""
        stops, then = (self.round.stops, self.round.then) if self.round else ({}, {})
        known = {**stops, **self.overdue}
        given = [visit for visit, o in self.outstanding.items() if isinstance(o.work, VisitWork)]
        found = [known.get(visit, self.stop) for visit in given]
        return (*(stop for stop in found if stop), *(one for rest in then.values() for one in rest))

    @property
    def rounds(self) -> int:
        """Measured rounds."""
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
        `algorithm`: that of its round; none if it is in no round. `after`: the visit of the same
        round from which it continues.

        A site that was lost during the same work gets that again, and goes on with it.
        """
        if stop.owner:
            self.owners[stop.site] = stop.owner
        before = self.interrupted.pop(stop.site, None)
        local = self.intent.training.local_in(algorithm)
        if before is not None and after is None and _is_again(before, stop, base, local):
            return before
        own = self.own.get((stop.site, stop.dataset)) if base else None
        model, previous = (base.model, base.entries) if base else (None, ())
        if after is not None:
            model, previous = after.model, (after.entry,)
        given = [each for each in (model, own) if each is not None]
        # Only models with a common start can be averaged.
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
        screened: bool = False,
        single: tuple[int, ...] = (),
        alike: tuple[bool, ...] = (),
    ) -> MergeWork:
        """The work of merging models; all arguments as in `MergeWork`."""
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
            screened=screened,
            single=single,
            alike=alike,
        )

    def verify_work(
        self,
        objective: ObjectiveName,
        model: ModelRef,
        made_by: tuple[Digest, ...],
        lineage: tuple[Entry, ...] | None = None,
    ) -> VerifyWork:
        """The work of measuring one objective of a model that resulted from the entries `made_by`.
        `lineage`: its history; none means the job's own."""
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
        """Proof for a site that models descend from the order."""
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
