"""A training job: the facts of its life, and how it is shown.

The facts (events, in the past tense) are what is stored; the job's state follows from them, see
`daitn.control.jobs`.
"""

from __future__ import annotations

import enum

import msgspec

from daitn.objects.decisions import Assessment, Decision, Route
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, ObjectiveName, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.messages import WorkOutcome
from daitn.objects.models import ModelRef

__all__ = [
    "ActionFailed",
    "Assessed",
    "CancelRequested",
    "Checkpoint",
    "DeadlinePassed",
    "Decided",
    "JobEvent",
    "JobState",
    "JobView",
    "ObjectiveView",
    "Planned",
    "Recovered",
    "Reported",
    "SiteLost",
    "Submitted",
    "VerifierAssignment",
    "VerifiersChosen",
    "VisitView",
    "Woke",
    "WorkNeeds",
    "WorkStalled",
]


class JobState(enum.StrEnum):
    """Where a job is."""

    SUBMITTED = "submitted"
    PLANNING = "planning"
    PREPARING = "preparing"
    VISITING = "visiting"
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
    JobState.VISITING: "the model is trained at a site",
    JobState.VERIFYING: "verification units measure the model",
    JobState.WAITING: "nothing can be done now; it goes on when the network allows",
    JobState.REACHED: "every objective holds",
    JobState.EXHAUSTED: "the budget, the route or the expected gain is used up before the targets",
    JobState.INFEASIBLE: "no route can satisfy the intent as it stands",
    JobState.CANCELLED: "its owner cancelled it",
    JobState.FAILED: "it cannot go on",
}


class WorkNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe said of the wanted model when the job was submitted."""

    data_schema: str
    test_schema: str
    parameters: int
    flops_per_example: float
    memory_bytes: int
    size_bytes: int
    labels: tuple[str, ...] = ()
    """Labels that the model tells apart; empty: it takes any."""
    labels_field: str = ""
    """The field of the intent that names them."""
    learning: dict[str, tuple[float, float]] = {}
    """What visits with this recipe were seen to teach: means and standard deviations of the route
    engine's parameters."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag="submitted"):
    """An owner handed in an intent."""

    job: JobId
    intent: TrainingIntent
    needs: WorkNeeds
    start: ModelRef | None = None
    """Weights that the owner brought."""
    insist: bool = False
    """Go on even if the feasibility module expects the targets to be missed."""


class Assessed(msgspec.Struct, frozen=True, tag="assessed"):
    """T-FAM gave its opinion."""

    assessment: Assessment


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """MTRCE computed a route; none when no visit is worth making."""

    route: Route | None
    decision: Decision
    waiting_for: str = ""
    """Set when there is no route now but may be one when the network changes."""
    why: str = ""
    """Without a route: what the route engine says of the best that could still be reached."""
    unvisited: dict[SiteId, str] = {}
    """Without a route: sites with data that the model did not visit, and why."""
    here: NodeDescriptor | None = None
    """The site of the first visit as a model that travels found it, without what it does not learn
    from; none: a control centre decided, or the model knew it so."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of the route engine, in the life of its job."""

    number: int
    """From 1 on."""
    at_s: float
    decision: Decision
    route: Route | None
    waiting_for: str
    why: str
    visits_before: int
    """How many visits had been measured by then."""


class VerifierAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """Who measures an objective."""

    objective: ObjectiveName
    site: SiteId | None
    """None: nobody can measure it now."""


class VerifiersChosen(msgspec.Struct, frozen=True, tag="verifiers-chosen"):
    """Each open objective was given to a verification unit."""

    assignments: tuple[VerifierAssignment, ...]


class Reported(msgspec.Struct, frozen=True, tag="reported"):
    """A site told how a piece of work ended."""

    outcome: WorkOutcome


class SiteLost(msgspec.Struct, frozen=True, tag="site-lost"):
    """A site that was working for the job is gone."""

    site: SiteId


class WorkStalled(msgspec.Struct, frozen=True, kw_only=True, tag="work-stalled"):
    """A site is there, and does not get on with a piece of work."""

    site: SiteId
    visit: VisitId
    silent_s: float
    """For how long nothing moved."""


class CandidateLost(msgspec.Struct, frozen=True, tag="candidate-lost"):
    """The weights that are to be measured cannot be had any more."""

    detail: str


class Woke(msgspec.Struct, frozen=True, kw_only=True, tag="woke"):
    """A waiting job is to try again: the network changed, or its time came."""


class DeadlinePassed(msgspec.Struct, frozen=True, kw_only=True, tag="deadline-passed"):
    """The intent's time is over."""


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, tag="cancel-requested"):
    """The owner wants it stopped."""


class ActionFailed(msgspec.Struct, frozen=True, tag="action-failed"):
    """The control centre could not carry a command out."""

    error: ErrorReport


class Recovered(msgspec.Struct, frozen=True, kw_only=True, tag="recovered"):
    """The control centre came back and takes the job up again."""


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
    | CancelRequested
    | ActionFailed
    | Recovered
)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was measured on every objective; a job can go on from any of them."""

    model: ModelRef
    values: dict[ObjectiveName, float]
    standard_error: dict[ObjectiveName, float]
    entries: tuple[Digest, ...]
    """Lineage entries of its verifications: what a visit that starts from it builds on."""
    release_to: tuple[str, ...]
    """Jurisdictions into which it may travel, given all the data that it learned from."""
    visits: tuple[int, ...] = ()
    """Positions in the job's made visits of those that led to it, oldest first."""
    by_label: dict[ObjectiveName, dict[str, float]] = {}
    """Objective to label to value, where its verifier told them."""


class ObjectiveView(msgspec.Struct, frozen=True, kw_only=True):
    """An objective and how far it is."""

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
    """One stop of the route that was really taken."""

    site: SiteId
    dataset: str
    work: int
    """Training examples."""
    seconds: float
    """Training alone."""
    transfer_s: float
    overhead_s: float
    verify_s: float
    """The longest of its verifications, with the transfer to its verifier."""
    bytes_in: int
    """To the site and to the verifiers that measured the result."""
    cost_usd: float
    loss: float
    values: dict[str, float]
    """Measured after the visit."""
    gains: dict[str, float]
    """Against the checkpoint from which the visit started."""
    model: Digest


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as `daitn describe` and the API show it."""

    job: JobId
    name: str
    owner: str
    recipe: str
    state: JobState
    sentence: str
    detail: str
    """What it waits for, or why it ended."""
    algorithm: str
    objectives: tuple[ObjectiveView, ...]
    route: tuple[VisitView, ...]
    planned: Route | None
    working: tuple[SiteId, ...]
    """Sites that work for it now."""
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
    """Its places in sites' queues, for instance `2nd at netco`; empty where it has its turn."""
    silent: str = ""
    """Sites at its work that have long said nothing new of it, and for how long."""
