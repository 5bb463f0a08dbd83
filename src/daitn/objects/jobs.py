"""A training job: its events, and its view for display.

Only the events (in the past tense) are stored; the job's state follows from them, see
`daitn.control.jobs`.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.decisions import Assessment, Decision, Round, Route
from daitn.objects.descriptors import ANY, NodeDescriptor
from daitn.objects.errors import ErrorReport, InvalidInput, NotFound, Refused
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.lineage import MOST_STATEMENT_BYTES, MOST_VISITS, Entry
from daitn.objects.merging import MOST_WALKERS, Algorithm
from daitn.objects.messages import WorkOutcome
from daitn.objects.model_needs import ModelNeeds
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.privacy import PrivacySpent
from daitn.objects.quorum import Disagreement

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
    "ResumeAsked",
    "RoundDue",
    "Setback",
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
    "model_left",
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
    JobState.CANCELLED: "it was cancelled",
    JobState.FAILED: "it cannot go on",
}


class WorkNeeds(ModelNeeds, frozen=True, kw_only=True):
    """What the recipe reported about the model at submission."""

    parameters: int
    flops_per_example: float
    size_bytes: int
    merges: bool = False
    """Whether the recipe merges models that sites trained separately."""
    merges_fresh: bool = False
    """Whether models that sites trained from a fresh one can be merged."""
    algorithms: tuple[Algorithm, ...] = ()
    """Algorithms by which the recipe can train it; empty means unknown."""
    learning: dict[str, tuple[float, float]] = {}
    """What earlier visits with this recipe taught: means and standard deviations of the route
    engine's parameters."""

    def trains_by(self, algorithm: Algorithm) -> bool:
        """Whether the recipe can train it by an algorithm, as far as known."""
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
    release_to: tuple[str, ...] = (ANY,)
    """Jurisdictions into which the start model may travel, given all the data it learned from."""


class LeftModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a job that one of its walkers left where it learned, for the next one to find."""

    job: JobId
    walker: Walker
    """The walker that left it."""
    at_s: float
    """When, in seconds since the epoch."""
    model: ModelRef
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(min_length=1, max_length=2 * MOST_VISITS)]
    """The lineage of the model; when found, only the entries that the finding model lacks."""


class Assessed(msgspec.Struct, frozen=True, tag="assessed"):
    """T-FAM assessed the intent."""

    assessment: Assessment


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """MTRCE computed a route, or none when no visit is worthwhile."""

    route: Route | None
    decision: Decision
    round: Round | None = None
    """Instead of a route: the sites that train the model at the same time."""
    waiting_for: str = ""
    """Set when there is no route now but a change in the network may open one."""
    why: str = ""
    """If there is no route: the route engine's statement on the best result still within reach."""
    unvisited: dict[SiteId, str] = {}
    """If there is no route: sites with data that the model has not visited, and why."""
    here: NodeDescriptor | None = None
    """The first visit's site as a travelling model found it, without what it does not learn from;
    absent means a control centre decided, or the model already knew the site in this form."""
    meets: LeftModel | None = None
    """What another walker left there, to be averaged with the result of the first visit."""


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
    """Number of visits measured by then."""


class VerifierAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """Which site measures an objective."""

    objective: ObjectiveName
    site: SiteId | None
    """Absent means no site can measure it now."""
    price_usd_per_hour: float = 0.0
    """Price of its computing, as in its descriptor at that time."""


class VerifiersChosen(msgspec.Struct, frozen=True, tag="verifiers-chosen"):
    """A verification unit was assigned to each open objective."""

    assignments: tuple[VerifierAssignment, ...]


class Reported(msgspec.Struct, frozen=True, tag="reported"):
    """A site reported how a piece of work ended."""

    outcome: WorkOutcome
    statement: Annotated[bytes, msgspec.Meta(max_length=MOST_STATEMENT_BYTES)] = b""
    """Its entry as the site signed it for outsiders, see `SignedStatement`; empty if it did not."""


class SiteLost(msgspec.Struct, frozen=True, tag="site-lost"):
    """A site that was working for the job left."""

    site: SiteId


class WorkStalled(msgspec.Struct, frozen=True, kw_only=True, tag="work-stalled"):
    """A site is connected but makes no progress with a piece of work."""

    site: SiteId
    visit: VisitId
    silent_s: float
    """Time without progress, in seconds."""
    took_s: float = 0.0
    """Time since it began, in seconds, if that is too long; else 0."""


class CandidateLost(msgspec.Struct, frozen=True, tag="candidate-lost"):
    """No holder can supply the weights that were to be measured."""

    detail: str


class Woke(msgspec.Struct, frozen=True, kw_only=True, tag="woke"):
    """A waiting job should try again: the network changed, or its timer expired."""


class DeadlinePassed(msgspec.Struct, frozen=True, kw_only=True, tag="deadline-passed"):
    """The deadline of the intent passed; for an ended job, the deadline of measuring its data's
    value."""


class ValueAsked(msgspec.Struct, frozen=True, kw_only=True, tag="value-asked"):
    """The value of an ended job's data is to be measured."""

    coalitions: int
    """Maximum number to measure."""
    within_s: float


class RoundDue(msgspec.Struct, frozen=True, kw_only=True, tag="round-due"):
    """The current round should wait no longer for slower sites."""


class CancelRequested(
    msgspec.Struct, frozen=True, kw_only=True, tag="cancel-requested", omit_defaults=True
):
    """Its owner or an operator asked to stop the job."""

    by: str = ""
    """The member who asked; empty if it is not known."""


class ResumeAsked(msgspec.Struct, frozen=True, kw_only=True, tag="resume-asked"):
    """The owner asked to resume an ended job."""


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
    | ResumeAsked
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
    """Values per label, by objective, if its verifier reported them."""


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
    """Training only."""
    transfer_s: float
    overhead_s: float
    verify_s: float
    """The longest of its verifications, including the transfer to the verifier."""
    bytes_in: int
    """To the site and to the verifiers that measured the result."""
    cost_usd: float
    loss: float | None
    privacy: PrivacySpent | None = None
    """What it may reveal about any record; absent means there is no such bound."""
    values: dict[str, float]
    """Measured after the visit."""
    gains: dict[str, float]
    """Difference from the checkpoint at which the visit started."""
    model: Digest
    """The measured model; for a round, the merged one."""
    round: int = 0
    """Which round of the job it was part of, from 1; 0 means none."""
    algorithm: Algorithm = Algorithm.SEQUENTIAL
    """How the round was merged."""


class Setback(msgspec.Struct, frozen=True, kw_only=True):
    """A site's work for a job that failed, was lost, or does not count: a model that was held back
    from a round, for instance."""

    site: SiteId
    reason: str
    times: int
    """How often, for this reason."""
    at_s: float
    """The last time."""

    def __str__(self) -> str:
        often = f" ({self.times} times)" if self.times > 1 else ""
        return f"{self.site}: {self.reason}{often}"


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
    """Values before the first visit."""
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
    """Sites working for it that have long been silent, and for how long."""
    disagreements: tuple[Disagreement, ...] = ()
    """Measurements that a quorum of verifiers contradicts."""
    setbacks: tuple[Setback, ...] = ()
    """Work of sites that failed or does not count, and why: the latest last. Those that failed too
    often are `excluded`."""
    not_resumed: ErrorReport | None = None
    """Why it cannot be resumed, and what to do instead; absent means that it can once it has ended.
    """


def model_left(job: JobView, recipe: str) -> ModelRef:
    """Start weights from another job's best model. Raises `Refused` if that job has not ended,
    `NotFound` if it left none, and `InvalidInput` if it has another recipe."""
    if not job.state.final:
        raise Refused(
            f"job {job.job} is {job.state}",
            field="model.start",
            fix="wait for its end, or cancel it",
        )
    if job.model is None:
        raise NotFound(
            f"job {job.job} left no verified model",
            field="model.start",
            fix="leave it out, or resume that job: its `daitn explain` says why it has none",
        )
    if job.recipe != recipe:
        raise InvalidInput(
            f"job {job.job} trained a model of the recipe {job.recipe}, and this is {recipe}",
            field="model.start",
            fix=f"state `model.recipe: {job.recipe}`, or leave out model.start",
        )
    return job.model


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a list: a short form of its `JobView`."""

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
