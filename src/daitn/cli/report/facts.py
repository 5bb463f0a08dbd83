"""What a report is made of, as the control centre (or a model's origin) tells it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property

import msgspec

from daitn import __version__
from daitn.cli.session import Session
from daitn.control.value.credits import credits_of, gain_of
from daitn.control.value.descent import Descent, descent_of
from daitn.identity.signing import check_lineage
from daitn.objects.errors import Corrupt, NotFound, Refused, Unreachable
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobView
from daitn.objects.lineage import Entry, Lineage, Merge, Verification, Visit
from daitn.objects.orders import Order
from daitn.objects.requests import DecisionList, JobList, JobQuery, TrainedModel
from daitn.objects.value import Contributions, ValueOfData, ValueQuestion
from daitn.objects.wire import decode
from daitn.tools import clock
from daitn.topology.snapshot import NodeList, SiteState

__all__ = ["Proof", "ReportFacts", "gather"]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the signatures of a job's lineage hold."""

    holds: bool
    said: str


class ReportFacts(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything in a report."""

    job: JobView
    intent: TrainingIntent | None
    """As its owner signed it; none on a fabric without signatures."""
    decisions: tuple[Decided, ...]
    entries: tuple[Entry, ...]
    """The lineage of the whole job; empty before a model was measured."""
    proof: Proof
    value: ValueOfData
    sites: tuple[SiteState, ...]
    """Of the network, those that took part first."""
    made_at_s: float
    version: str

    @cached_property
    def descent(self) -> Descent:
        """How the best model came about."""
        return descent_of(self.entries, self.job.model.manifest if self.job.model else Digest(""))

    @cached_property
    def measured(self) -> dict[Digest, dict[str, Verification]]:
        """Model to objective to its latest measurement."""
        names = {(o.topic, o.metric): o.name for o in self.job.objectives}
        found: dict[Digest, dict[str, Verification]] = {}
        for entry in self.entries:
            fact = entry.fact
            if isinstance(fact, Verification) and (name := names.get((fact.topic, fact.metric))):
                found.setdefault(fact.model, {})[name] = fact
        return found

    @cached_property
    def bases(self) -> dict[Digest, Digest]:
        """Model to what it was trained or merged from."""
        found = {}
        for entry in self.entries:
            match entry.fact:
                case Visit(model_in=base, model_out=made) | Merge(base=base, model_out=made):
                    found[made] = base
        return found

    @cached_property
    def way(self) -> tuple[Digest, ...]:
        """The models on the way to the best one, oldest first."""
        found: dict[Digest, None] = {}
        at = self.job.model.manifest if self.job.model else None
        while at is not None and at not in found:
            found[at] = None
            at = self.bases.get(at)
        return tuple(reversed(found))

    @cached_property
    def kept(self) -> frozenset[Digest]:
        return frozenset(self.way)


async def gather(session: Session, job: JobId, *, travels: bool = False) -> ReportFacts:
    """Ask for everything that is known of a job. `travels`: its model does so on its own, and the
    session is with its origin. Raises `NotFound`, `Refused` or `Unreachable`."""
    query = JobQuery(job=job)
    view = (await session.ask("jobs", query, JobList)).jobs[0]
    decisions = (await session.ask("decisions", query, DecisionList)).decisions
    trained: TrainedModel | None = None
    with contextlib.suppress(NotFound):  # Nothing was measured yet.
        trained = await session.ask("lineage", query, TrainedModel)
    sites = await _sites(session)
    entries = trained.lineage.entries if trained else ()
    order = trained.order if trained else None
    return ReportFacts(
        job=view,
        intent=decode(order.order, Order).intent if order else None,
        decisions=decisions,
        entries=entries,
        proof=_proof(view.job, entries, session, sites),
        value=_by_visits(view, entries, sites)
        if travels
        else await session.ask("value", ValueQuestion(job=job), ValueOfData),
        sites=_that_matter(view, entries, sites),
        made_at_s=clock.wall_s(),
        version=__version__,
    )


async def _sites(session: Session) -> tuple[SiteState, ...]:
    """The network's directory; empty where no control centre tells it."""
    with contextlib.suppress(NotFound, Refused, Unreachable):
        centre = Session(session.fabric)
        return (await centre.ask("nodes", JobQuery(job=JobId("")), NodeList)).nodes
    return ()


def _by_visits(
    view: JobView, entries: tuple[Entry, ...], sites: tuple[SiteState, ...]
) -> ValueOfData:
    """By the lineage alone."""
    owners = {site.descriptor.site: site.descriptor.owner for site in sites}
    objectives = {o.name: (o.topic, o.metric) for o in view.objectives}
    descent = descent_of(entries, view.model.manifest if view.model else Digest(""))

    def owner_of(site: SiteId) -> OwnerId:
        return owners.get(site, OwnerId(site))

    return ValueOfData(
        job=view.job,
        method=Contributions.VISITS,
        gain=gain_of(descent, objectives),
        credits=credits_of(descent, objectives, {}, owner_of),
    )


def _proof(
    job: JobId, entries: tuple[Entry, ...], session: Session, sites: tuple[SiteState, ...]
) -> Proof:
    if not entries:
        return Proof(holds=True, said="Nothing is signed yet: no model was measured.")
    keys: Mapping[SiteId, str]
    if session.identity is not None:
        keys, source = session.identity.orders().sites(), "as the network's roster has them"
    else:
        keys = {site.descriptor.site: site.descriptor.public_key for site in sites}
        source = "as the control centre names them: this network has no roster"
    try:
        check_lineage(Lineage(job=job, entries=entries), keys or None)
    except Corrupt as error:
        return Proof(holds=False, said=f"{error.field}: {error.problem}. Do not use this model.")
    return Proof(
        holds=True,
        said=f"All {len(entries):,} entries are signed with their sites' keys, {source}.",
    )


_MOST_SITES = 400


def _that_matter(
    view: JobView, entries: tuple[Entry, ...], sites: tuple[SiteState, ...]
) -> tuple[SiteState, ...]:
    part = {entry.fact.site for entry in entries} | {visit.site for visit in view.route}
    part |= {o.verifier for o in view.objectives if o.verifier}

    def key(state: SiteState) -> tuple[bool, int, str]:
        node = state.descriptor
        return (
            node.site not in part,
            -sum(data.samples for data in node.datasets),
            str(node.site),
        )

    return tuple(sorted(sites, key=key)[:_MOST_SITES])
