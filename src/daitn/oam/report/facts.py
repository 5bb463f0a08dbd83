"""The facts of a report, as the control centre (or a model's home) provides them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol, TypeVar

import msgspec

from daitn import __version__
from daitn.control.agreeing import agreed
from daitn.control.value.credits import credits_of, gain_of
from daitn.control.value.descent import Descent, descent_of
from daitn.identity.signing import check_lineage
from daitn.objects.errors import Corrupt, NotFound, Refused, Unreachable
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobView
from daitn.objects.lineage import Entry, Lineage, Merge, Verification, Visit
from daitn.objects.orders import Order
from daitn.objects.requests import EVERYTHING, DecisionList, JobList, JobQuery, TrainedModel
from daitn.objects.value import Contributions, ValueOfData, ValueQuestion
from daitn.objects.wire import decode
from daitn.tools import clock
from daitn.topology.snapshot import NodeList, SiteState

__all__ = ["Asks", "Proof", "ReportFacts", "gather"]

T = TypeVar("T")


class Asks(Protocol):
    """Queries a control centre or a site. Raises the `DaitnError` in the answer."""

    async def __call__(self, verb: str, question: object, answer: type[T], /) -> T: ...


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the signatures of a job's lineage are valid."""

    holds: bool
    sentence: str


class ReportFacts(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The content of a report."""

    job: JobView
    intent: TrainingIntent | None
    """As signed by its owner; none on a fabric without signatures."""
    decisions: tuple[Decided, ...]
    entries: tuple[Entry, ...]
    """The lineage of the whole job; empty until a model is measured."""
    proof: Proof
    value: ValueOfData
    sites: tuple[SiteState, ...]
    """Sites of the network, participants first."""
    made_at_s: float
    version: str

    @cached_property
    def descent(self) -> Descent:
        """The descent of the best model."""
        return descent_of(self.entries, self.job.model.manifest if self.job.model else Digest(""))

    @cached_property
    def measured(self) -> dict[Digest, dict[str, Verification]]:
        """Model to objective to measured value: the majority's, if there are several verifiers."""
        names = {(o.topic, o.metric): o.name for o in self.job.objectives}
        by_model: dict[Digest, dict[str, list[Verification]]] = {}
        for entry in self.entries:
            fact = entry.fact
            if isinstance(fact, Verification) and (name := names.get((fact.topic, fact.metric))):
                by_model.setdefault(fact.model, {}).setdefault(name, []).append(fact)
        return {
            model: {name: agreed(facts).fact for name, facts in by_name.items()}
            for model, by_name in by_model.items()
        }

    @cached_property
    def bases(self) -> dict[Digest, Digest]:
        """Model to the models from which it was trained or merged."""
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


async def gather(
    job: JobId,
    ask: Asks,
    keys: Mapping[SiteId, str] | None = None,
    *,
    ask_center: Asks | None = None,
) -> ReportFacts:
    """Collect everything known about a job.

    `ask`: the control centre. `keys`: sites' public keys by the network's roster; none where there
    is no roster. `ask_center`: of a job whose model travels on its own, when `ask` asks its home.
    Raises `NotFound`, `Refused` or `Unreachable`.
    """
    query = JobQuery(job=job)
    view = (await ask("jobs", query, JobList)).jobs[0]
    decisions = (await ask("decisions", query, DecisionList)).decisions
    trained: TrainedModel | None = None
    with contextlib.suppress(NotFound):  # Nothing was measured yet.
        trained = await ask("lineage", query, TrainedModel)
    sites = await _sites(ask_center or ask)
    entries = trained.lineage.entries if trained else ()
    order = trained.order if trained else None
    return ReportFacts(
        job=view,
        intent=decode(order.order, Order).intent if order else None,
        decisions=decisions,
        entries=entries,
        proof=await asyncio.to_thread(_proof, view.job, entries, keys, sites),
        value=_by_visits(view, entries, sites)
        if ask_center is not None
        else await ask("value", ValueQuestion(job=job), ValueOfData),
        sites=_that_matter(view, entries, sites),
        made_at_s=clock.wall_s(),
        version=__version__,
    )


async def _sites(ask: Asks) -> tuple[SiteState, ...]:
    """The nodes that the control centre knows; empty if none provides them."""
    with contextlib.suppress(NotFound, Refused, Unreachable):
        return (await ask("nodes", EVERYTHING, NodeList)).nodes
    return ()


def _by_visits(
    view: JobView, entries: tuple[Entry, ...], sites: tuple[SiteState, ...]
) -> ValueOfData:
    """The descent by the lineage alone."""
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
    job: JobId,
    entries: tuple[Entry, ...],
    keys: Mapping[SiteId, str] | None,
    sites: tuple[SiteState, ...],
) -> Proof:
    if not entries:
        return Proof(holds=True, sentence="Nothing is signed yet: no model was measured.")
    if keys is not None:
        source = "as the network's roster has them"
    else:
        keys = {site.descriptor.site: site.descriptor.public_key for site in sites}
        source = "as the control centre names them: this network has no roster"
    try:
        check_lineage(Lineage(job=job, entries=entries), keys or None)
    except Corrupt as error:
        return Proof(
            holds=False, sentence=f"{error.field}: {error.problem}. Do not use this model."
        )
    return Proof(
        holds=True,
        sentence=f"All {len(entries):,} entries are signed with their sites' keys, {source}.",
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
