"""Requests from owners and operators to a control centre or gateway, and the answers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.audit import CountersignedHead
from daitn.objects.decisions import Decision
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobState, JobSummary, JobView
from daitn.objects.lineage import Lineage
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.queries import QueryIntent, QueryRecord

__all__ = [
    "AssessIntent",
    "Blobs",
    "CutQuery",
    "DecisionList",
    "ExplainQuery",
    "JobList",
    "JobPage",
    "JobQuery",
    "JobsWanted",
    "ModelList",
    "NetworkFacts",
    "QueriesWanted",
    "QueryExplained",
    "QueryList",
    "SitesWanted",
    "SubmitIntent",
    "TrainedModel",
    "WitnessedHeads",
]


class SubmitIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Start a training job."""

    intent: TrainingIntent
    start: ModelRef | None = None
    """Weights to start from, held by the control centre."""
    insist: bool = False
    """Start even if the feasibility module expects the targets to be missed."""
    order: SignedOrder | None = None
    """The intent as its owner signed it. The same order handed in again is the same job."""


class AssessIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Ask whether an intent is feasible, without starting anything."""

    intent: TrainingIntent


class Blobs(msgspec.Struct, frozen=True, kw_only=True):
    """Asks which of these blobs an owner has brought to a control centre, and says which."""

    digests: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=10_000)]


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One job by its id; an empty id means all jobs."""

    job: JobId


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, oldest first."""

    jobs: tuple[JobView, ...]


class JobsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    before: JobId | None = None
    """Only jobs that are older than this one."""
    owner: str | None = None
    """Only this owner's; none: all that the asker may see."""
    state: JobState | None = None


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: tuple[JobSummary, ...]
    more: bool
    """Whether there are older ones."""


class SitesWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sites, by name."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    after: str = ""
    """Only sites whose names follow this one."""
    only: SiteId | None = None
    """This one alone."""
    alive: bool | None = None
    role: Role | None = None
    owner: str | None = None


class WitnessedHeads(msgspec.Struct, frozen=True, kw_only=True):
    """Where sites' audit logs stood when a control centre signed them last, by site."""

    heads: tuple[CountersignedHead, ...]


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A network, and the control centre that is asked."""

    network: str
    """Its name; empty where there is no roster."""
    center: str
    """What the roster calls this control centre."""
    version: str
    """Of the software."""
    api: str
    """URL of its API and dashboard; empty: it serves none."""
    sites: int
    alive: int
    """Of the sites, those that are connected."""
    jobs: int
    """Those that the asker may see and that have not ended."""
    deployments: int


class DecisionList(msgspec.Struct, frozen=True, kw_only=True):
    """Every decision on a job's route, oldest first."""

    decisions: tuple[Decided, ...]


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Models that jobs left in the network, oldest first."""

    models: tuple[ModelDescriptor, ...]


class TrainedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about a job's best model."""

    job: JobView
    lineage: Lineage
    """Of the whole job. Check it with keys from another source than this answer."""
    order: SignedOrder | None = None
    """The job's; none on a fabric without signatures."""


class QueriesWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a gateway for its latest queries."""

    limit: int = 100
    owner: str | None = None
    """Only this owner's queries; none: all but those of `without`."""
    without: tuple[str, ...] = ()


class QueryList(msgspec.Struct, frozen=True, kw_only=True):
    """How queries were served, newest first."""

    queries: tuple[QueryRecord, ...]


class ExplainQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a gateway why it served a query as it did."""

    query: str
    """The record's id."""


class QueryExplained(msgspec.Struct, frozen=True, kw_only=True):
    """A query and its decision, with every term and rejection."""

    query: QueryRecord
    decision: Decision


class CutQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a gateway for the QS-QRRT of a query, without running the query."""

    intent: QueryIntent
