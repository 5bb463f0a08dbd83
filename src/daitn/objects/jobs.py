"""A training job: its events, and its view for display.

Only the events (in the past tense) are stored; the job's state follows from them, see
`daitn.control.jobs`.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.decisions import Assessment, Decision, Round, Route
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.lineage import MOST_VISITS, Entry
from daitn.objects.merging import MOST_WALKERS, Algorithm
from daitn.objects.messages import WorkOutcome
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.privacy import PrivacySpent

__all__ = [
    "ActionFailed",
    "Assessed",
    "CancelRequested",
    "Checkpoint",
    "DeadlinePassed",
    "Decided",
    "JobEvent",
    "JobState",
    "JobSummary",
    "JobView",
    "LeftModel",
    "ObjectiveView",
    "Planned",
    "Recovered",
    "Reported",
    "RoundDue",
    "SiteLost",
    "Submitted",
    "ValueAsked",
    "VerifierAssignment",
    "VerifiersChosen",
    "VisitView",
    "Walker",
    "Woke",
    "WorkNeeds",
    "WorkStalled",
]


Walker = Annotated[int, msgspec.Meta(ge=0, lt=MOST_WALKERS)]


class JobState(enum.StrEnum):
    """Stages of a job."""

    SUBMITTED = "submitted"
    PLANNING = "planning"
    PREPARING = "preparing"
    VISITING = "visiting"
    MERGING = "merging"
    VERIFYING = "verifying"
    WAITING = "waiting"
    REACHED = "reached"
    EXHAUSTED = "exhausted"
    INFEASIBLE = "infeasible"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in _FINAL

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_FINAL = frozenset(
    (
        JobState.REACHED,
        JobState.EXHAUSTED,
        JobState.INFEASIBLE,
        JobState.CANCELLED,
        JobState.FAILED,
    )
)

_SENTENCES = {
    JobState.SUBMITTED: "its feasibility is being assessed",
    JobState.PLANNING: "the route engine computes where the model goes next",
    JobState.PREPARING: "a site makes the fresh model",
    JobState.VISITING: "the model is trained where the data lies",
    JobState.MERGING: "a site merges the models of a round",
    JobState.VERIFYING: "verification units measure the model",
    JobState.WAITING: "nothing can be done now; it goes on when the network allows",
    JobState.REACHED: "every objective holds",
    JobState.EXHAUSTED: "the budget, the route or the expected gain is used up before the targets",
    JobState.INFEASIBLE: "no route can satisfy the intent as it stands",
    JobState.CANCELLED: "its owner cancelled it",
    JobState.FAILED: "it cannot go on",
}


class WorkNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What the recipe reported about the model when the job was submitted."""

    data_schema: str
    test_schema: str
    parameters: int
    flops_per_example: float
    memory_bytes: int
    size_bytes: int
    labels: tuple[str, ...] = ()
    """Labels that the model distinguishes; empty: it accepts any."""
    labels_field: str = ""
    """The field of the intent that names them."""
    private: bool = False
    """Whether it can be trained with differential privacy."""
    merges: bool = False
    """Whether the recipe merges models that sites trained apart from one another."""
    merges_fresh: bool = False
    """Whether models that sites trained from a fresh one can be merged."""
    algorithms: tuple[Algorithm, ...] = ()
    """Those by which the recipe can train it; empty: it was not said."""
    learning: dict[str, tuple[float, float]] = {}
    """What earlier visits with this recipe taught: means and standard deviations of the route
    engine's parameters."""

    def trains_by(self, algorithm: Algorithm) -> bool:
        """Whether the recipe can train it by an algorithm, as far as that was said."""
        return not self.algorithms or algorithm in self.algorithms


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag="submitted"):
    """An owner submitted an intent."""

    job: JobId
    intent: TrainingIntent
    needs: WorkNeeds
    start: ModelRef | None = None
    """Weights supplied by the owner."""
    insist: bool = False
    """Start even if the feasibility module expects the targets to be missed."""
    order: SignedOrder | None = None
    """The intent as its owner signed it; none on a fabric without signatures."""
    walker: Walker = 0
    """Which of the models that travel for one job this is, from 0."""


class LeftModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a job that one of its walkers left where it learned, for the next one to meet."""

    job: JobId
    walker: Walker
    """Who left it."""
    at_s: float
    """When, in seconds since the epoch."""
    model: ModelRef
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(min_length=1, max_length=2 * MOST_VISITS)]
    """The lineage of the model; of one that is met, what whoever meets it does not have in its own.
    """


class Assessed(msgspec.Struct, frozen=True, tag="assessed"):
    """T-FAM assessed the intent."""

    assessment: Assessment


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """MTRCE computed a route, or none when no visit is worthwhile."""

    route: Route | None
    decision: Decision
    round: Round | None = None
    """In place of a route: where the model is trained at the same time."""
    waiting_for: str = ""
    """Set when there is no route now but a change in the network may open one."""
    why: str = ""
    """Without a route: what the route engine says about the best result still within reach."""
    unvisited: dict[SiteId, str] = {}
    """Without a route: sites with data that the model has not visited, and why."""
    here: NodeDescriptor | None = None
    """The first visit's site as a travelling model found it, without what it does not learn from;
    none: a control centre decided, or the model already knew the site in this form."""
    meets: LeftModel | None = None
    """What another walker left there, to be averaged with what the first visit makes."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of the route engine in a job's life."""

    number: int
    """Counts from 1."""
    at_s: float
    decision: Decision
    route: Route | None
    round: Round | None = None
    waiting_for: str
    why: str
    visits_before: int
    """How many visits had been measured by then."""


class VerifierAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """Which site measures an objective."""

    objective: ObjectiveName
    site: SiteId | None
    """None: no site can measure it now."""


class VerifiersChosen(msgspec.Struct, frozen=True, tag="verifiers-chosen"):
    """A verification unit was assigned to each open objective."""

    assignments: tuple[VerifierAssignment, ...]


class Reported(msgspec.Struct, frozen=True, tag="reported"):
    """A site reported how a piece of work ended."""

    outcome: WorkOutcome


class SiteLost(msgspec.Struct, frozen=True, tag="site-lost"):
    """A site that was working for the job left."""

    site: SiteId


class WorkStalled(msgspec.Struct, frozen=True, kw_only=True, tag="work-stalled"):
    """A site is connected but makes no progress with a piece of work."""

    site: SiteId
    visit: VisitId
    silent_s: float
    """Time without progress, in seconds."""


class CandidateLost(msgspec.Struct, frozen=True, tag="candidate-lost"):
    """No holder can supply the weights that were to be measured."""

    detail: str


class Woke(msgspec.Struct, frozen=True, kw_only=True, tag="woke"):
    """A waiting job should try again: the network changed, or its timer expired."""


class DeadlinePassed(msgspec.Struct, frozen=True, kw_only=True, tag="deadline-passed"):
    """The deadline of the intent passed; of an ended job, that of measuring its data's value."""


class ValueAsked(msgspec.Struct, frozen=True, kw_only=True, tag="value-asked"):
    """The value of an ended job's data is to be measured."""

    coalitions: int
    """The most to measure."""
    within_s: float


class RoundDue(msgspec.Struct, frozen=True, kw_only=True, tag="round-due"):
    """The round in progress is to wait no longer for sites that are slower than expected."""


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, tag="cancel-requested"):
    """The owner asked to stop the job."""


class ActionFailed(msgspec.Struct, frozen=True, tag="action-failed"):
    """The control centre failed to carry out a command."""

    error: ErrorReport


class Recovered(msgspec.Struct, frozen=True, kw_only=True, tag="recovered"):
    """The control centre restarted and resumes the job."""


JobEvent = (
    Submitted
    | Assessed
    | Planned
    | VerifiersChosen
    | Reported
    | SiteLost
    | WorkStalled
    | CandidateLost
    | Woke
    | DeadlinePassed
    | RoundDue
    | ValueAsked
    | CancelRequested
    | ActionFailed
    | Recovered
)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A model measured on every objective; a job can continue from any checkpoint."""

    model: ModelRef
    values: dict[ObjectiveName, float]
    standard_error: dict[ObjectiveName, float]
    entries: tuple[Digest, ...]
    """Lineage entries of its verifications: the parents of a visit that starts from it."""
    release_to: tuple[str, ...]
    """Jurisdictions into which it may travel, given all the data it learned from."""
    visits: tuple[int, ...] = ()
    """Positions, among the job's completed visits, of those that led to it, oldest first."""
    by_label: dict[ObjectiveName, dict[str, float]] = {}
    """Objective to label to value, where its verifier reported them."""


class ObjectiveView(msgspec.Struct, frozen=True, kw_only=True):
    """An objective and its progress."""

    name: str
    metric: str
    topic: str
    target: float
    reached: float | None
    standard_error: float | None
    items: int | None
    verifier: SiteId | None

    @property
    def holds(self) -> bool:
        return self.reached is not None and self.reached >= self.target


class VisitView(msgspec.Struct, frozen=True, kw_only=True):
    """One completed visit of the route actually taken."""

    site: SiteId
    dataset: str
    work: int
    """Training examples."""
    seconds: float
    """Training alone."""
    transfer_s: float
    overhead_s: float
    verify_s: float
    """The longest of its verifications, including the transfer to the verifier."""
    bytes_in: int
    """To the site and to the verifiers that measured the result."""
    cost_usd: float
    loss: float | None
    privacy: PrivacySpent | None = None
    """What it may tell of any record; none: there is no such bound."""
    values: dict[str, float]
    """Measured after the visit."""
    gains: dict[str, float]
    """Difference from the checkpoint at which the visit started."""
    model: Digest
    """Measured: of a round, the merged one."""
    round: int = 0
    """Which round of the job it was part of, from 1; 0: none."""
    algorithm: Algorithm = Algorithm.SEQUENTIAL
    """How the round was merged."""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as `daitn describe` and the API show it."""

    job: JobId
    name: str
    owner: str
    recipe: str
    config: dict[str, object]
    """The recipe's configuration."""
    state: JobState
    sentence: str
    detail: str
    """What it is waiting for, or why it ended."""
    algorithm: str
    objectives: tuple[ObjectiveView, ...]
    route: tuple[VisitView, ...]
    planned: Route | None
    working: tuple[SiteId, ...]
    """Sites working for it now."""
    excluded: tuple[SiteId, ...]
    untrained: dict[str, float]
    """Measured before the first visit."""
    seconds: float
    bytes_moved: int
    cost_usd: float
    examples: int
    model: ModelRef | None
    """The best verified model so far."""
    assessment: Assessment | None
    decision: Decision | None
    error: ErrorReport | None
    submitted_at_s: float
    ended_at_s: float | None
    needs: WorkNeeds
    queued: str = ""
    """Its positions in sites' queues, for instance `2nd at netco`; empty when it is not queued."""
    silent: str = ""
    """Sites working for it that have been silent for long, and for how long."""


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a list: what its `JobView` says in a few lines."""

    job: JobId
    name: str
    owner: str
    recipe: str
    state: JobState
    sentence: str
    detail: str
    """What it is waiting for, or why it ended."""
    algorithm: str
    objectives: tuple[ObjectiveView, ...]
    visits: int
    """Completed."""
    working: tuple[SiteId, ...]
    """Sites working for it now."""
    seconds: float
    bytes_moved: int
    cost_usd: float
    examples: int
    submitted_at_s: float
    ended_at_s: float | None
    queued: str
    silent: str

    @classmethod
    def of(cls, shown: JobView) -> JobSummary:
        return cls(
            job=shown.job,
            name=shown.name,
            owner=shown.owner,
            recipe=shown.recipe,
            state=shown.state,
            sentence=shown.sentence,
            detail=shown.detail,
            algorithm=shown.algorithm,
            objectives=shown.objectives,
            visits=len(shown.route),
            working=shown.working,
            seconds=shown.seconds,
            bytes_moved=shown.bytes_moved,
            cost_usd=shown.cost_usd,
            examples=shown.examples,
            submitted_at_s=shown.submitted_at_s,
            ended_at_s=shown.ended_at_s,
            queued=shown.queued,
            silent=shown.silent,
        )
