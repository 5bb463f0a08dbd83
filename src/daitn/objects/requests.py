"""Requests from owners and operators to a control centre or gateway, and the answers."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from daitn.objects.audit import CountersignedHead
from daitn.objects.decisions import Decision
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobState, JobSummary, JobView
from daitn.objects.lineage import Lineage, SignedStatement
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
    "ReplicaView",
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
    """The intent as signed by its owner. Submitting the same order again is the same job."""


class AssessIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Ask whether an intent is feasible, without starting anything."""

    intent: TrainingIntent


class Blobs(msgspec.Struct, frozen=True, kw_only=True):
    """Asks which of these blobs an owner has supplied to a control centre; the answer lists
    them."""

    digests: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=10_000)]


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One job by its id; an empty id means all jobs."""

    job: JobId


EVERYTHING: Final = JobQuery(job=JobId(""))
"""All jobs, or all that a verb which concerns no job reports."""


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, oldest first."""

    jobs: tuple[JobView, ...]


class JobsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    before: JobId | None = None
    """Only jobs older than this one."""
    owner: str | None = None
    """Only this owner's; absent means all visible ones."""
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
    """Only sites after this name."""
    only: SiteId | None = None
    """Only this site."""
    alive: bool | None = None
    role: Role | None = None
    owner: str | None = None


class WitnessedHeads(msgspec.Struct, frozen=True, kw_only=True):
    """State of sites' audit logs when a control centre last signed them, by site."""

    heads: tuple[CountersignedHead, ...]


_SILENT_S = 15.0


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the control centres that share a database."""

    replica: str
    """Its name among them."""
    leads: bool
    """Whether it is the leader."""
    silent_s: float
    """Seconds since it last updated the database."""
    endpoints: tuple[str, ...]
    """Endpoints at which it listens while it leads."""
    version: str
    """Version of its software."""

    @property
    def is_silent(self) -> bool:
        """Whether it has been silent for so long that it would not take over."""
        return self.silent_s >= _SILENT_S


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A network, and the control centre that answers."""

    network: str
    """Its name; empty if there is no roster."""
    center: str
    """Name of this control centre in the roster."""
    version: str
    """Version of the software."""
    api: str
    """URL of its API and dashboard; empty means it serves none."""
    sites: int
    alive: int
    """Number of connected sites."""
    jobs: int
    """Visible jobs that have not ended."""
    deployments: int
    replicas: tuple[ReplicaView, ...] = ()
    """All that share its database; none if it is alone."""
    unreadable_jobs: tuple[JobId, ...] = ()
    """For operators: jobs that cannot be read from the database."""


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
    """Lineage of the whole job. Check it with keys from a source other than this answer."""
    order: SignedOrder | None = None
    """The job's order; none on a fabric without signatures."""
    statements: tuple[SignedStatement, ...] = ()
    """Entries as signed by sites for outsiders; sites of earlier versions do not sign them."""


class QueriesWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a gateway for its latest queries."""

    limit: int = 100
    owner: str | None = None
    """Only this owner's queries; absent means all but those of `without`."""
    without: tuple[str, ...] = ()
    before: tuple[float, str] | None = None
    """Only those after the query with this time and id, in an order with the latest first."""


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
    undecided: str = ""
    """Why there is no decision to show, and `decision` is empty."""


class CutQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Ask a gateway for the QS-QRRT of a query, without running the query."""

    intent: QueryIntent
