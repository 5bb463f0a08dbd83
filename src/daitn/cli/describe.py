"""`daitn describe`: everything known about one job, node, data set, model or facility."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from daitn.cli.describe_pages import dataset_page, node_page
from daitn.cli.queries import accuracies, findings, first_token, load, rate
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    Session,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import age, job_table, plain_table, standing
from daitn.identity.signing import check_entry
from daitn.oam.words import doubts, size
from daitn.objects.croissant import to_croissant
from daitn.objects.deployments import ANY_CONTEXT, DeploymentDescriptor
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.errors import Corrupt, NotFound
from daitn.objects.findings import Finding
from daitn.objects.identifiers import JobId, SiteId, checked_name
from daitn.objects.lineage import Entry, Verification
from daitn.objects.queries import Trust
from daitn.objects.requests import EVERYTHING, JobList, JobQuery, ModelList
from daitn.objects.text import decimals
from daitn.objects.wire import to_json
from daitn.topology.qrrt.served import ServedModel, ServedModels
from daitn.topology.snapshot import NodeList, SiteState

__all__ = ["describe"]


class Described(enum.StrEnum):
    """What can be described."""

    JOB = "job"
    """By its id: state, objectives, route."""
    NODE = "node"
    """By its site: state, owner, roles, key; its hardware and load; its data and test sets."""
    DATASET = "dataset"
    """By `site/name`: schema, topics, labels; the share of usable records, and what happens to the
    others; who may train on it."""
    MODEL = "model"
    """By its name: weights and holders; its deployments with accuracy, speed and terms; its
    measurements: by which verification unit, when, on which topic, and whether of the weights or of
    a deployment."""
    FACILITY = "facility"
    """By its site: memory, queries in progress, terms; each model that answers there, with accuracy
    and speed."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a facility: its provider's descriptor, and what is known about it."""

    descriptor: DeploymentDescriptor
    known: ServedModel


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One verification unit's measurement of a model."""

    verifier: SiteId
    trust: Trust
    """`weights`, wherever they are, or `asked`: the deployment at `site`."""
    site: SiteId | None
    topic: str
    metric: str
    value: float
    standard_error: float
    items: int
    at_s: float
    degraded: bool = False
    """It says that the deployment answers worse than before."""
    two_faced: bool = False
    """It says that the deployment answers examinations better than single questions."""
    unanswered: bool = False
    """It gets no answer to most of its single questions."""

    @property
    def says(self) -> str:
        """What it says besides the value, in words."""
        said = {
            "two-faced": self.two_faced,
            "degraded": self.degraded and not self.two_faced,
            "single questions unanswered": self.unanswered,
        }
        return ", ".join(word for word, holds in said.items() if holds)


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about a model."""

    name: str
    trained: ModelDescriptor | None
    """None if the network did not train it."""
    deployments: tuple[Deployment, ...]
    """With that name, or with those weights."""
    measured: tuple[Measurement, ...]
    """Newest first."""


class FacilityDescription(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about a facility."""

    site: SiteState
    deployments: tuple[Deployment, ...]
    used_bytes: int
    """Weights of the models placed there."""
    in_flight: int
    """Queries being answered or waiting there."""


def describe(
    kind: Annotated[Described, typer.Argument(help="Kind of thing.")],
    name: Annotated[str, typer.Argument(help="Its id: a job, a model, a site, or site/dataset.")],
    croissant: Annotated[
        bool, typer.Option("--croissant", help="A data set as Croissant JSON-LD.")
    ] = False,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show everything known about one thing.

    Examples:

      daitn describe job healthcare-1

      daitn describe model healthcare-1

      daitn describe dataset ninds/ninds --croissant
    """
    value, shown = run(_described(kind, name, croissant, center))
    if as_json or croissant:
        print_json(to_json(value))
    else:
        screen.print(shown)


async def _described(
    kind: Described, name: str, croissant: bool, center: str
) -> tuple[object, RenderableType]:
    async with connect(center) as session:
        match kind:
            case Described.JOB:
                query = JobQuery(job=JobId(checked_name(name, "job")))
                view = (await session.ask("jobs", query, JobList)).jobs[0]
                return view, job_table(view)
            case Described.MODEL:
                model = await _model(session, name)
                return model, _model_page(model)
            case Described.FACILITY:
                facility = await _facility(session, name)
                return facility, _facility_page(facility)
        sites = (await session.ask("nodes", EVERYTHING, NodeList)).nodes
    if kind is Described.NODE:
        nodes = {str(site.descriptor.site): site for site in sites}
        if name not in nodes:
            raise _unknown("node", name, nodes)
        return nodes[name], node_page(nodes[name])
    datasets = {f"{d.site}/{d.name}": d for site in sites for d in site.descriptor.datasets}
    for id_, dataset in datasets.items():
        if name in (id_, dataset.name):
            return (to_croissant(dataset) if croissant else dataset), dataset_page(dataset)
    raise _unknown("data set", name, datasets)


def _unknown(what: str, name: str, known: Iterable[str]) -> NotFound:
    """An error that suggests similar names."""
    near = difflib.get_close_matches(name, tuple(known))
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    kinds = {"data set": "datasets", "facility": "facilities"}.get(what, f"{what}s")
    return NotFound(
        f"there is no {what} {name}", field="name", fix=f"{meant}see `daitn get {kinds}`"
    )


async def _model(session: Session, name: str) -> ModelDescription:
    models = (await session.ask("models", EVERYTHING, ModelList)).models
    sites = (await session.ask("nodes", EVERYTHING, NodeList)).nodes
    deployed = await _deployments(session, sites)
    names = {model.name for model in models} | {each.known.name for each in deployed}
    if name not in names:
        raise _unknown("model", name, sorted(names))
    weights = {each.descriptor.manifest for each in deployed if each.known.name == name}
    trained = next((m for m in models if m.name == name), None) or next(
        (m for m in models if m.manifest in weights), None
    )
    own = tuple(
        each
        for each in deployed
        if each.known.name == name or (trained and each.descriptor.manifest == trained.manifest)
    )
    evidence = [entry for each in own for entry in each.descriptor.evidence]
    evidence += trained.evidence if trained else ()
    by_asking = [
        _by_asking(finding) for finding in await findings(session, sites) if _is_of(finding, own)
    ]
    measured = {*_weighed(evidence, sites), *by_asking}
    return ModelDescription(
        name=name,
        trained=trained,
        deployments=own,
        measured=tuple(sorted(measured, key=lambda m: (-m.at_s, m.topic, m.verifier))),
    )


async def _facility(session: Session, name: str) -> FacilityDescription:
    sites = (await session.ask("nodes", EVERYTHING, NodeList)).nodes
    facilities = {str(s.descriptor.site): s for s in sites if s.descriptor.facility}
    if name not in facilities:
        raise _unknown("facility", name, facilities)
    own = await _deployments(session, (facilities[name],))
    return FacilityDescription(
        site=facilities[name],
        deployments=own,
        used_bytes=sum(each.descriptor.size_bytes for each in own),
        in_flight=sum(each.known.in_flight for each in own),
    )


async def _deployments(session: Session, sites: tuple[SiteState, ...]) -> tuple[Deployment, ...]:
    """The deployments at these sites, by name and then site."""
    descriptors = {
        (deployed.name, site.descriptor.site): deployed
        for site in sites
        if site.descriptor.facility
        for deployed in site.descriptor.facility.deployments
    }
    served = (await session.ask("served", EVERYTHING, ServedModels)).models
    return tuple(
        Deployment(descriptor=descriptors[known.name, known.site], known=known)
        for known in served
        if (known.name, known.site) in descriptors
    )


def _is_of(finding: Finding, deployments: tuple[Deployment, ...]) -> bool:
    about = (finding.deployment, finding.site, finding.manifest)
    return any(about == (d.known.name, d.known.site, d.descriptor.manifest) for d in deployments)


def _by_asking(finding: Finding) -> Measurement:
    return Measurement(
        verifier=finding.verifier,
        trust=Trust.ASKED,
        site=finding.site,
        topic=finding.topic,
        metric=finding.metric,
        value=finding.value,
        standard_error=finding.standard_error,
        items=finding.items,
        at_s=finding.at_s,
        degraded=finding.degraded,
        two_faced=finding.two_faced is True,
        unanswered=finding.unanswered is True,
    )


def _weighed(evidence: list[Entry], sites: tuple[SiteState, ...]) -> Iterator[Measurement]:
    """Evidence signed by verification units of this network."""
    units = {
        site.descriptor.site: site.descriptor.public_key
        for site in sites
        if Role.VERIFIER in site.descriptor.roles
    }
    for entry in evidence:
        fact = entry.fact
        if not isinstance(fact, Verification) or units.get(fact.site) != entry.public_key:
            continue
        try:
            check_entry(entry)
        except Corrupt:
            continue
        yield Measurement(
            verifier=fact.site,
            trust=Trust.WEIGHTS,
            site=None,
            topic=fact.topic,
            metric=fact.metric,
            value=fact.value,
            standard_error=fact.standard_error,
            items=fact.items,
            at_s=fact.at_s,
        )


def _model_page(model: ModelDescription) -> RenderableType:
    head = Text(model.name, style="bold")
    if model.trained is not None:
        trained = model.trained
        head.append(
            f"  {trained.recipe} of {trained.owner}, {size(trained.size_bytes)}, "
            f"made {age(trained.created_at_s)}, held by {', '.join(trained.holders)}",
            style="not bold",
        )
    measured = [
        (
            m.topic,
            f"{m.value:.3f}±{m.standard_error:.3f}",
            m.metric,
            m.items,
            m.verifier,
            f"{m.trust} at {m.site}" if m.site else m.trust,
            age(m.at_s),
            m.says,
        )
        for m in model.measured
    ]
    columns = ("topic", "value", "metric", "items", "measured by", "trust", "when", "says")
    return Group(
        head,
        _deployments_page(model.deployments),
        plain_table("measured", columns, measured),
    )


def _facility_page(facility: FacilityDescription) -> RenderableType:
    node = facility.site.descriptor
    descriptor = node.facility
    assert descriptor is not None, "a facility"
    rows = [
        ("state", "alive" if facility.site.alive else "lost"),
        ("owner, law", f"{node.owner}, {node.jurisdiction}"),
        ("endpoint", descriptor.endpoint),
        (
            "models may be placed",
            f"{', '.join(descriptor.recipes) or '-'}" if descriptor.hosts else "no",
        ),
        ("memory", f"{size(facility.used_bytes)} of {size(descriptor.memory_bytes)}"),
        ("hosting", f"{decimals(descriptor.price_usd_per_hour)} USD/h"),
        ("queries are kept", "yes" if descriptor.keeps_queries else "no"),
        ("responses are kept", "yes" if descriptor.keeps_responses else "no"),
        ("queries there", facility.in_flight),
    ]
    return Group(
        plain_table(node.site, ("", ""), rows),
        _deployments_page(facility.deployments),
    )


def _deployments_page(deployments: tuple[Deployment, ...]) -> RenderableType:
    """Performance and terms of deployments."""
    doing = [
        (
            each.known.name,
            each.known.site,
            standing(each.known),
            accuracies(each.known),
            load(each.known),
            first_token(each.known),
            rate(each.known),
            f"{each.known.error_share:.1%}",
        )
        for each in deployments
    ]
    terms = [
        (
            each.known.name,
            each.known.site,
            ", ".join(each.descriptor.apis),
            ", ".join(each.descriptor.abilities.reads),
            ", ".join(each.descriptor.abilities.says),
            f"{each.descriptor.price_usd_per_1k_in:g} / {each.descriptor.price_usd_per_1k_out:g}",
            "any"
            if each.descriptor.context_tokens == ANY_CONTEXT
            else each.descriptor.context_tokens,
            each.descriptor.queue,
            size(each.descriptor.size_bytes) if each.descriptor.size_bytes else "-",
        )
        for each in deployments
    ]
    of = ("model", "facility")
    doing_columns = (*of, "state", "accuracy", "load", "first token", "tokens/s", "errors")
    terms_columns = (
        *of,
        "asked by",
        "reads",
        "says",
        "USD/1k in / out",
        "context",
        "may wait",
        "size",
    )
    return Group(
        plain_table("deployments", doing_columns, doing),
        *_doubts_table(deployments, of),
        plain_table("terms", terms_columns, terms),
        *_engines_table(deployments, of),
    )


def _doubts_table(
    deployments: tuple[Deployment, ...], of: tuple[str, ...]
) -> Iterator[RenderableType]:
    """What verifiers say against them; nothing if they say nothing."""
    said = [
        (each.known.name, each.known.site, kind, words)
        for each in deployments
        for kind, words in doubts(each.known).items()
    ]
    if said:
        yield plain_table("what verifiers say", (*of, "", ""), said)


def _engines_table(
    deployments: tuple[Deployment, ...], of: tuple[str, ...]
) -> Iterator[RenderableType]:
    run = [
        (d.known.name, d.known.site, d.descriptor.engine)
        for d in deployments
        if d.descriptor.engine
    ]
    if run:
        yield plain_table("engines", (*of, "run by"), run)
