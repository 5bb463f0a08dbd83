"""Messages between control centre, nodes and owners over the fabric.

Each is a MessagePack struct (see `daitn.objects.wire`). Receivers ignore unknown fields, so a newer
peer may add some.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.audit import AuditClaim, CountersignedHead
from daitn.objects.bounds import Count, Price
from daitn.objects.compression import Compression
from daitn.objects.deployments import DeploymentTerms, Evidence, ModelPolicy, config_digest
from daitn.objects.descriptors import Edition, NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.grants import Signed
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId, Word
from daitn.objects.lineage import MOST_STATEMENT_BYTES, MOST_VISITS, Entry
from daitn.objects.merging import MOST_BEHIND, MOST_MERGED, LocalRule, MergeRule
from daitn.objects.models import ModelRef
from daitn.objects.moments import Moment
from daitn.objects.orders import SignedOrder
from daitn.objects.privacy import PrivacyWish
from daitn.objects.readings import LinkReading, LoadReading, Measured, ServingReading
from daitn.objects.roster import SignedRoster

__all__ = [
    "Advert",
    "CancelWork",
    "CertificateAnswer",
    "CertificateQuestion",
    "ChunkRequest",
    "Demand",
    "DemandRate",
    "DeployModel",
    "MergeWork",
    "ModelsNeeded",
    "NameAnswer",
    "NameQuestion",
    "OnBehalf",
    "ProbeRequest",
    "RecipeQuestion",
    "RetireModel",
    "RosterAnswer",
    "RosterQuestion",
    "Sensed",
    "Serving",
    "StatusQuestion",
    "VerifyWork",
    "VisitWork",
    "Work",
    "WorkOutcome",
    "WorkProgress",
    "WorkReceipt",
    "WorkReport",
    "WorkState",
    "WorkStatus",
]


Descent = Annotated[tuple[Entry, ...], msgspec.Meta(max_length=MOST_VISITS)]


class Advert(msgspec.Struct, frozen=True, kw_only=True):
    """A node's descriptor, signed over its canonical bytes with the key in it."""

    descriptor: NodeDescriptor
    signature: Word


class Sensed(msgspec.Struct, frozen=True, kw_only=True):
    """One site's latest measurements."""

    site: SiteId
    links: tuple[LinkReading, ...] = ()
    load: LoadReading | None = None
    edition: Edition = (0.0, 0)
    """The version of its descriptor: a receiver with an older one requests it."""


class VisitWork(msgspec.Struct, frozen=True, kw_only=True, tag="visit"):
    """Fetch a model, train it on a data set, keep the result and report.

    Without `model`, the site initialises a fresh one from `recipe`, `config` and `seed`. With
    `examples` 0 it makes or fetches the model and does not train it.
    """

    visit: VisitId
    job: JobId
    recipe: Word
    config: dict[str, object]
    seed: int
    owner: Word
    dataset: Word
    examples: Annotated[int, msgspec.Meta(ge=0, le=10**12)]
    model: ModelRef | None
    previous: tuple[Digest, ...]
    stands_for: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    """Number of examples as which a slow site's update counts in a merge; 0 means `examples`."""
    compression: Compression = Compression.NONE
    """The form in which the result is kept for a merge, if its parts match those of `model`."""
    purpose: Word = ""
    """As stated in the intent."""
    privacy: PrivacyWish | None = None
    """As stated in the intent."""
    secure: bool = False
    """Whether the result stays at the site, to be merged by a secure sum in which nobody sees a
    summand."""
    order: SignedOrder | None = None
    """Its owner's order; none on a fabric without signatures."""
    lineage: Descent = ()
    """For models under an order: the visits and merges that made them, each after its inputs."""
    local: LocalRule = LocalRule()
    """What the algorithm requires."""
    own: ModelRef | None = None
    """For an algorithm with variates: the site's model from this data in the previous round; absent
    if there is none or it is lost."""

    def __post_init__(self) -> None:
        if self.compression is Compression.AUTO:
            raise ValueError("compression: auto is a wish, and no form")

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models from which it starts."""
        return tuple(model for model in (self.model, self.own) if model is not None)


class VerifyWork(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    """Fetch a model, measure it on a private test set, sign and report."""

    visit: VisitId
    job: JobId
    recipe: Word
    config: dict[str, object]
    topic: Word
    metric: Word
    model: ModelRef
    previous: tuple[Digest, ...]
    owner: Word = ""
    purpose: Word = ""
    """As stated in the intent."""
    order: SignedOrder | None = None
    lineage: Descent = ()
    """Both as in `VisitWork`."""

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models from which it starts."""
        return (self.model,)


class MergeWork(msgspec.Struct, frozen=True, kw_only=True, tag="merge"):
    """Fetch models that were trained from `base`, merge them, keep the result and report."""

    visit: VisitId
    job: JobId
    recipe: Word
    config: dict[str, object]
    seed: int
    owner: Word
    base: ModelRef
    trained: Annotated[tuple[ModelRef, ...], msgspec.Meta(min_length=1, max_length=MOST_MERGED)]
    shares: Annotated[
        tuple[Annotated[int, msgspec.Meta(gt=0, le=10**12)], ...],
        msgspec.Meta(min_length=1, max_length=MOST_MERGED),
    ]
    """Number of examples of each model's visit, or that it stands for."""
    rule: MergeRule
    previous: tuple[Digest, ...]
    part: bool = False
    """Whether the models are a group of a round, for a further merge."""
    starts: Annotated[tuple[ModelRef, ...], msgspec.Meta(max_length=MOST_MERGED)] = ()
    """The model from which each was trained; empty means all from `base`."""
    behind: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, le=MOST_BEHIND)], ...],
        msgspec.Meta(max_length=MOST_MERGED),
    ] = ()
    """By how many rounds each of them is older than `base`, which reduces its weight."""
    moments: ModelRef | None = None
    """State of the outer step after the job's last merge; absent means this is the first."""
    secure: bool = False
    """Whether they stay at their sites, to be merged by a secure sum in which nobody sees a
    summand."""
    purpose: Word = ""
    order: SignedOrder | None = None
    lineage: Descent = ()
    """These three as in `VisitWork`, for all the models."""
    screened: bool = False
    """Whether each is of a single site: none then counts for much more, or goes much further, than
    usual, and the report's error names one whose update is unlike those of like data."""
    single: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=MOST_MERGED)], ...],
        msgspec.Meta(max_length=MOST_MERGED),
    ] = ()
    """Which of them are of a single site, and so bounded, if the others are groups' means."""
    alike: Annotated[tuple[bool, ...], msgspec.Meta(max_length=MOST_MERGED)] = ()
    """Whether the site of each publishes about the same labels as most; empty means that it is not
    known."""

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.trained):
            raise ValueError("shares: each model has one")
        if not len(self.starts) == len(self.behind) in (0, len(self.trained)):
            raise ValueError("starts, behind: each model has one of both, or none has")
        if len(self.alike) not in (0, len(self.trained)):
            raise ValueError("alike: each model has one, or none has")
        if self.single and max(self.single) >= len(self.trained):
            raise ValueError("single: there is no such model")

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models from which it starts."""
        return (self.base, *self.trained, *self.starts)


Work = VisitWork | VerifyWork | MergeWork


class OnBehalf(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre queries a site in the name of a person who authorised it."""

    mandate: Signed
    """The person's `CenterMandate`."""
    verb: Word
    question: bytes


class CancelWork(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a piece of work and discard its result."""

    visit: VisitId


class StatusQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a site for the progress of a piece of work."""

    visit: VisitId


class RosterQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the control centre for a roster newer than this version."""

    version: int


class RosterAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The control centre's roster version, and the roster itself if it is newer than requested."""

    version: int
    newer: SignedRoster | None = None


class CertificateQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the control centre for certificates for the calling member."""

    request: str
    """A request for a certificate, PEM."""


class CertificateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A member's certificates and the authority's, PEM; see `identity/certificates.py`."""

    authority: str
    membership: str
    certificate: str


class RecipeQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a site that runs a recipe for the needs of a model with this configuration."""

    recipe: Word
    config: dict[str, object]


class ModelsNeeded(msgspec.Struct, frozen=True, kw_only=True):
    """Tell a site which models may still be requested; it may delete the others."""

    models: tuple[Digest, ...]


class WorkState(enum.StrEnum):
    """Progress of a piece of work, as seen by the site that does it."""

    UNKNOWN = "unknown"
    """The site never accepted it, or lost it in a crash."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a piece of work ended. A finished one has `entry` and, after a visit, `model`."""

    visit: VisitId
    job: JobId
    site: SiteId
    state: WorkState
    entry: Entry | None = None
    model: ModelRef | None = None
    error: ErrorReport | None = None


class WorkReport(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, signed by its site over its canonical bytes, so nobody can forge a failure."""

    outcome: WorkOutcome
    signature: Word
    audit: AuditClaim | None = None
    """State of the site's audit log, if it has new entries."""
    statement: Annotated[bytes, msgspec.Meta(max_length=MOST_STATEMENT_BYTES)] = b""
    """The entry as an in-toto statement, for readers outside the network; see `SignedStatement`."""


class WorkReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A control centre's answer to a report."""

    audit: CountersignedHead | None = None
    """The latest entry of the site's audit log that the control centre has signed."""


class WorkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a `StatusQuestion`."""

    state: WorkState
    outcome: WorkOutcome | None = None
    phase: Word = ""
    """Phase of running work, as in `WorkProgress`; empty before the first."""
    done: Count = 0
    total: Count = 0
    ahead: Count = 0
    """How many pieces of work are queued before this one."""


class WorkProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a running visit or verification, for observers."""

    job: JobId
    visit: VisitId
    site: SiteId
    phase: Word
    """`fetching`, `training` or `measuring`."""
    done: Count
    total: Count
    loss: Measured | None = None


class ChunkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a holder for one chunk (or a manifest) by its digest."""

    digest: Digest


class ProbeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a site for this many filler bytes, to measure throughput."""

    size_bytes: int


class DeployModel(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a facility to fetch a model, load it and serve it. Idempotent.

    The facility answers once it has stored the request; its advert then reports the progress.
    """

    name: Word
    owner: Word
    recipe: Word
    config: dict[str, object]
    model: ModelRef
    policy: ModelPolicy = ModelPolicy()
    evidence: Evidence = ()
    price_usd_per_1k_in: Price = 0.0
    price_usd_per_1k_out: Price = 0.0
    grant: Signed | None = None
    """Its owner's grant; none on a fabric without signatures."""
    name_grant: Signed | None = None
    place_grant: Signed | None = None
    """The control centre's `PlaceGrant`, if the grant names no facilities."""

    @property
    def terms(self) -> DeploymentTerms:
        """The terms on which it will answer."""
        return DeploymentTerms(
            recipe=self.recipe,
            config=config_digest(self.config),
            policy=self.policy,
            price_usd_per_1k_in=self.price_usd_per_1k_in,
            price_usd_per_1k_out=self.price_usd_per_1k_out,
        )


class NameQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the control centre for a bare name, for a model of the asking facility's owner."""

    name: Word


class NameAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The name's `NameGrant`; none on a fabric without signatures."""

    grant: Signed | None = None


class RetireModel(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a facility to finish a deployment's queries in flight and remove it."""

    name: Word


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A facility's free memory and the load of its deployments."""

    site: SiteId
    at_s: Moment
    memory_free_bytes: Count
    """Available to models placed here."""
    deployments: tuple[ServingReading, ...]


class DemandRate(msgspec.Struct, frozen=True, kw_only=True):
    """Rate of one kind of query."""

    topic: Word
    """Empty means unknown."""
    model: Word
    """The requested name, or `auto`."""
    per_s: Measured
    shed_per_s: Measured
    """Part of `per_s`: shed because of load."""
    tokens_out: Measured
    """Mean length of an answer, in tokens."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Demand at one gateway, smoothed."""

    site: SiteId
    at_s: Moment
    rates: tuple[DemandRate, ...]
