"""What control centre, nodes and owners say to each other over the fabric.

All of it travels as MessagePack of these structs (see `daitn.objects.wire`); unknown fields are
ignored, so that a newer peer can say more.
"""

from __future__ import annotations

import enum

import msgspec

from daitn.objects.deployments import Evidence, ModelPolicy, Price, Word
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.lineage import Entry
from daitn.objects.models import ModelRef
from daitn.objects.readings import LinkReading, LoadReading, ServingReading

__all__ = [
    "Advert",
    "CancelWork",
    "ChunkRequest",
    "Demand",
    "DemandRate",
    "DeployModel",
    "ModelsNeeded",
    "ProbeRequest",
    "RecipeQuestion",
    "RetireModel",
    "Sensed",
    "Serving",
    "StatusQuestion",
    "VerifyWork",
    "VisitWork",
    "Work",
    "WorkOutcome",
    "WorkProgress",
    "WorkReport",
    "WorkState",
    "WorkStatus",
]


class Advert(msgspec.Struct, frozen=True, kw_only=True):
    """A node's descriptor, signed over its canonical bytes with the key that it names."""

    descriptor: NodeDescriptor
    signature: str


class Sensed(msgspec.Struct, frozen=True, kw_only=True):
    """What one site measured lately."""

    site: SiteId
    links: tuple[LinkReading, ...] = ()
    load: LoadReading | None = None


class VisitWork(msgspec.Struct, frozen=True, kw_only=True, tag="visit"):
    """Fetch a model, train it on a data set, keep the result and report.

    Without `model` a fresh one is initialised from `recipe`, `config` and `seed`.
    With `examples` 0 it is made or fetched and not trained.
    """

    visit: VisitId
    job: JobId
    recipe: str
    config: dict[str, object]
    seed: int
    owner: str
    dataset: str
    examples: int
    model: ModelRef | None
    previous: tuple[Digest, ...]


class VerifyWork(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    """Fetch a model, measure it on a private test set, sign and report."""

    visit: VisitId
    job: JobId
    recipe: str
    config: dict[str, object]
    topic: str
    metric: str
    model: ModelRef
    previous: tuple[Digest, ...]


Work = VisitWork | VerifyWork


class CancelWork(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a piece of work and forget what it made."""

    visit: VisitId


class StatusQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a site how far a piece of work is."""

    visit: VisitId


class RecipeQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a site that runs a recipe what a model of this configuration needs."""

    recipe: str
    config: dict[str, object]


class ModelsNeeded(msgspec.Struct, frozen=True, kw_only=True):
    """Tell a site which models somebody may still ask for; it may forget the others."""

    models: tuple[Digest, ...]


class WorkState(enum.StrEnum):
    """How far a piece of work is, as the site that does it knows."""

    UNKNOWN = "unknown"
    """The site never accepted it, or lost it in a crash."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a piece of work ended. `entry` and, after a visit, `model` where it is done."""

    visit: VisitId
    job: JobId
    site: SiteId
    state: WorkState
    entry: Entry | None = None
    model: ModelRef | None = None
    error: ErrorReport | None = None


class WorkReport(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, signed by its site over its canonical bytes: a failure too must be its own."""

    outcome: WorkOutcome
    signature: str


class WorkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a question about a piece of work."""

    state: WorkState
    outcome: WorkOutcome | None = None
    phase: str = ""
    """Of running work, as in `WorkProgress`; empty before the first."""
    done: int = 0
    total: int = 0
    ahead: int = 0
    """Pieces of work that were accepted before this one, where it waits for them."""


class WorkProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A running visit or verification, for those who watch."""

    job: JobId
    visit: VisitId
    site: SiteId
    phase: str
    """`fetching`, `training` or `measuring`."""
    done: int
    total: int
    loss: float | None = None


class ChunkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a holder for one chunk (or a manifest) by its digest."""

    digest: Digest


class ProbeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a site for this many meaningless bytes, to see how fast they come."""

    size_bytes: int


class DeployModel(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a facility to fetch a model, load it and answer with it. Asking twice is harmless.

    It is answered as soon as the wish is kept; the facility's advert tells how far it is.
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


class RetireModel(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a facility to finish what a deployment has under way, and to forget it."""

    name: str


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """How a facility does."""

    site: SiteId
    at_s: float
    memory_free_bytes: int
    """Left for models that may be placed here."""
    deployments: tuple[ServingReading, ...]


class DemandRate(msgspec.Struct, frozen=True, kw_only=True):
    """How often queries of one kind come."""

    topic: str
    """Empty: not known."""
    model: str
    """The name asked for, or `auto`."""
    per_s: float
    shed_per_s: float
    """Of them, turned away because of load."""
    tokens_out: float
    """Mean length of an answer."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked at one gateway, smoothed."""

    site: SiteId
    at_s: float
    rates: tuple[DemandRate, ...]
