"""Filters that a data set and its site must pass. All of them always run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

import msgspec

from daitn.objects.access import AccessRequest, allows, published_rulings, refusals
from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import ComputeDescriptor, DatasetDescriptor, covers_topic
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.intents import Quantity, TrainingIntent
from daitn.objects.merging import Algorithm
from daitn.objects.model_needs import ModelNeeds
from daitn.objects.text import counted, some
from daitn.topology.fit import other_labels, topics_fit
from daitn.topology.inbound import LINK_QUANTITIES, Inbound
from daitn.topology.relaxation import DROPPED, as_value, relaxed_requirement
from daitn.topology.snapshot import SiteState

__all__ = [
    "DataCandidate",
    "Wanted",
    "lasting_rejections",
    "path_rejections",
    "requirement_rejection",
]

_NO_COMPUTE = ComputeDescriptor(device="none", memory_bytes=0, speed_flops=0.0, recipes=())

_UNITS = {
    Quantity.SAMPLES: "samples",
    Quantity.QUALITY: "share",
    Quantity.AGE_S: "s",
    Quantity.PRICE_USD_PER_1K: "USD per 1,000 examples",
    Quantity.SPEED_FLOPS: "FLOP/s",
    Quantity.MEMORY_BYTES: "bytes",
    Quantity.RTT_S: "s",
    Quantity.THROUGHPUT_BPS: "bytes/s",
}

_RULES = {
    "recipes": "recipe-allowed",
    "owners": "owner-allowed",
    "purposes": "purpose-allowed",
    "start_models": "start-model",
    "hours": "hours",
}
"""Names of the filters that represent a data owner's policy."""


@dataclass(frozen=True)
class DataCandidate:
    """A data set, with the state of its site and the links to it."""

    state: SiteState
    dataset: DatasetDescriptor
    inbound: Inbound

    @property
    def id(self) -> str:
        return f"{self.state.descriptor.site}/{self.dataset.name}"

    @property
    def compute(self) -> ComputeDescriptor:
        """The site's compute, or a placeholder without recipes and memory."""
        return self.state.descriptor.compute or _NO_COMPUTE


@dataclass(frozen=True)
class Wanted:
    """The requirements that data sets are checked against."""

    intent: TrainingIntent
    needs: ModelNeeds
    now_s: float
    stale_after_s: float
    places: Mapping[ObjectiveName, frozenset[tuple[SiteId, str]]]
    """Site and jurisdiction of every verifier that can measure an objective, in the intent's
    order."""
    columns: Mapping[ObjectiveName, frozenset[int]]
    """Numbers of columns on which an objective can be measured; empty means any, or unknown."""
    severed: Callable[[SiteId, SiteId], bool] = lambda one, other: False
    """Whether there is no path between two sites."""


def lasting_rejections(candidate: DataCandidate, wanted: Wanted) -> list[Rejection]:
    """Why the data set cannot train the model, according to descriptors, and whether it is open."""
    return [
        *_site(candidate),
        *_recipe(candidate, wanted),
        *_start(candidate, wanted),
        *_labels(candidate, wanted),
        *_columns(candidate, wanted),
        *_measured_columns(candidate, wanted),
        *_access(candidate, wanted),
        *_privacy(candidate, wanted),
        *_topic(candidate, wanted),
        *_memory(candidate, wanted),
        *_release(candidate, wanted),
    ]


def _site(candidate: DataCandidate) -> Iterator[Rejection]:
    if not candidate.state.alive:
        yield Rejection(
            candidate=candidate.id,
            filter="alive",
            reason=f"site {candidate.dataset.site} is not connected now",
            field="",
        )
    if cordon := candidate.state.descriptor.cordon:
        yield Rejection(
            candidate=candidate.id,
            filter="cordoned",
            reason=f"site {candidate.dataset.site} {cordon}",
            field="",
        )
    if candidate.state.descriptor.compute is None:
        yield Rejection(
            candidate=candidate.id,
            filter="compute",
            reason=f"site {candidate.dataset.site} holds data but cannot train",
            field="",
        )


def _recipe(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """A recipe is never relaxed: another recipe is another model."""
    recipe, dataset = wanted.intent.model.recipe, candidate.dataset
    reads = wanted.needs.data_schema
    if dataset.data_schema != reads:
        yield Rejection(
            candidate=candidate.id,
            filter="schema",
            reason=f"recipe {recipe} reads {reads}, the data is {dataset.data_schema}",
            field="model.recipe",
        )
    if recipe not in candidate.compute.recipes:
        installed = ", ".join(sorted(candidate.compute.recipes)) or "none"
        yield Rejection(
            candidate=candidate.id,
            filter="recipe-installed",
            reason=f"recipe {recipe} is not installed at {dataset.site}; installed: {installed}",
            field="model.recipe",
        )


def _labels(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """Reject unknown labels before the model travels, because they would end the visit.

    Proposes no relaxation: another class is another model, and a label may be one of the model's in
    another spelling.
    """
    needs = wanted.needs
    unknown = other_labels(candidate.dataset.labels, needs.labels)
    if unknown:
        yield Rejection(
            candidate=candidate.id,
            filter="labels",
            reason=f"its labels {some(unknown)} are not among {needs.labels_field} "
            f"({some(needs.labels)})",
            field=needs.labels_field,
            shortfall=float(len(unknown)),
            unit="labels",
        )


def _columns(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """Reject tables that are too wide or too narrow, which would end the visit too. Proposes no
    relaxation: with other columns it is another model."""
    columns, needed = candidate.dataset.columns, wanted.needs.columns
    if needed is None or columns is msgspec.UNSET or needed.fits(columns):
        return
    yield Rejection(
        candidate=candidate.id,
        filter="columns",
        reason=f"it has {counted(columns, 'column')} to learn from, {needed.field} is for "
        f"{needed}; {needed.fix}",
        field=needed.field,
        shortfall=float(max(needed.least - columns, columns - needed.most)),
        unit="columns",
    )


def _measured_columns(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """A model is measured on the columns that it learned from, so a test set must have as many."""
    columns = candidate.dataset.columns
    if wanted.needs.columns is None or columns is msgspec.UNSET:
        return
    for index, (name, measured) in enumerate(wanted.columns.items()):
        if measured and columns not in measured:
            numbers = " or ".join(map(str, sorted(measured)))
            yield Rejection(
                candidate=candidate.id,
                filter="measured-columns",
                reason=f"it has {counted(columns, 'column')} to learn from, and {name} is measured "
                f"on {numbers}; have the owners offer the same columns",
                field=f"objectives[{index}]",
            )


def _start(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """No site can make such a model."""
    if wanted.needs.imported and not wanted.intent.model.start:
        yield Rejection(
            candidate=candidate.id,
            filter="start",
            reason="a model of this configuration is imported, not made by a site: state where it "
            "is in model.start",
            field="model.start",
        )


def _access(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """The published part of the data owner's policy, which the site enforces."""
    intent = wanted.intent
    request = AccessRequest(
        owner=intent.owner,
        recipe=intent.model.recipe,
        purpose=intent.purpose,
        brought=bool(intent.model.start),
    )
    for no in refusals(published_rulings(candidate.dataset.policy, request, wanted.now_s)):
        yield Rejection(
            candidate=candidate.id,
            filter=_RULES[no.rule],
            reason=f"the data owner {no.reason}",
            field=no.field,
        )


def _privacy(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """What was revealed about records cannot be taken back, so nothing is relaxed."""
    demand, left = candidate.dataset.policy.privacy, candidate.dataset.private_visits_left
    wish = wanted.intent.training.privacy
    if (demand or wish) and not wanted.needs.private:
        whose = "its owner demands" if demand else "the intent asks for"
        yield Rejection(
            candidate=candidate.id,
            filter="privacy",
            reason=f"{whose} differential privacy, and the model cannot be trained with it; the "
            "recipe classifier needs the ranges of its columns for it",
            field="model.config.ranges" if wanted.intent.model.recipe == "classifier" else "model",
        )
    training = wanted.intent.training
    if demand and not training.local.plain:
        pulls = training.mu is not None and training.algorithm is not Algorithm.FEDPROX
        what = "training.mu" if pulls else training.algorithm
        yield Rejection(
            candidate=candidate.id,
            filter="privacy",
            reason=f"its owner demands differential privacy, and {what} learns more from the "
            "records than it covers; sequential, fedavg and others by themselves do not",
            field="training.mu" if pulls else "training.algorithm",
        )
    if candidate.dataset.policy.secure_aggregation and not training.secure_aggregation:
        yield Rejection(
            candidate=candidate.id,
            filter="secure-aggregation",
            reason="its owner lets out what models learn in sums with other sites' alone",
            field="training.secure_aggregation",
        )
    if demand and left == 0:
        yield Rejection(
            candidate=candidate.id,
            filter="privacy-budget",
            reason=f"its privacy is spent: less is left of epsilon {demand.epsilon_total:g} than a "
            f"visit takes ({demand.epsilon_per_visit:g})",
            field="",
        )


def _topic(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """Data on a narrower topic passes; data on a broader or a sibling topic does not."""
    topics, stated = candidate.dataset.topics, wanted.intent.data.topics
    if any(covers_topic(broad, topic) for broad in stated for topic in topics):
        return
    nearest = max(sorted(topics), key=lambda topic: topics_fit(stated, topic), default=None)
    yield Rejection(
        candidate=candidate.id,
        filter="topic",
        reason=f"its topics ({', '.join(topics) or 'none'}) are outside {', '.join(stated)}",
        field="data.topics",
        shortfall=1.0 - (topics_fit(stated, nearest) if nearest else 0.0),
        unit="topic distance",
        relax_to=as_value(sorted({*stated, nearest})) if nearest else "",
    )


def _memory(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    has = candidate.compute.memory_bytes
    if has < wanted.needs.memory_bytes:
        yield Rejection(
            candidate=candidate.id,
            filter="memory",
            reason=f"training needs {wanted.needs.memory_bytes} bytes of memory, "
            f"{candidate.dataset.site} has {has}",
            field="model.config",
            shortfall=float(wanted.needs.memory_bytes - has),
            unit="bytes",
        )


def _release(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """A model trained here must be measured somewhere: here, or where it may travel.

    An objective that nobody can measure is reported with its verifiers, not for every data set.
    """
    release_to = candidate.dataset.policy.release_to
    for index, (name, places) in enumerate(wanted.places.items()):
        if not places or any(
            site == candidate.dataset.site or allows(release_to, jurisdiction)
            for site, jurisdiction in places
        ):
            continue
        where = ", ".join(sorted({jurisdiction for _, jurisdiction in places}))
        yield Rejection(
            candidate=candidate.id,
            filter="release",
            reason=f"its models may travel to {', '.join(release_to) or 'nowhere'} only, "
            f"{name} is measured in {where}",
            field=f"objectives[{index}]",
        )


def path_rejections(candidate: DataCandidate, wanted: Wanted) -> Iterator[Rejection]:
    """A model trained here must reach a verifier; one without any path to here cannot fetch it."""
    here = candidate.dataset.site
    for index, (name, places) in enumerate(wanted.places.items()):
        if not places or not all(wanted.severed(here, site) for site, _ in places):
            continue
        yield Rejection(
            candidate=candidate.id,
            filter="path",
            reason=f"there is no path between {here} and who measures {name} "
            f"({some(sorted({site for site, _ in places}))}): "
            "neither can connect to the other; with `listen: []` in its file the control centre "
            "relays",
            field=f"objectives[{index}]",
        )


def requirement_rejection(candidate: DataCandidate, wanted: Wanted, index: int) -> Rejection | None:
    """Why the data set does not meet requirement `index` of the intent; none if it does."""
    requirement = wanted.intent.requirements[index]
    value = _value(candidate, wanted, requirement.quantity)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        missing = _missing(candidate, wanted, requirement.quantity)
        return Rejection(
            candidate=candidate.id,
            filter=requirement.quantity,
            reason=f"{requirement} is required, {missing}",
            field=f"requirements[{index}]",
            relax_to=DROPPED,
        )
    shortfall = requirement.shortfall(value)
    if shortfall == 0:
        return None
    field, relax_to = relaxed_requirement(requirement, index, value)
    shown = value if isinstance(value, str) else f"{value:.6g}"
    return Rejection(
        candidate=candidate.id,
        filter=requirement.quantity,
        reason=f"{requirement} is required, it is {shown}",
        field=field,
        shortfall=shortfall,
        unit="" if requirement.quantity.is_name else _UNITS[requirement.quantity],
        relax_to=relax_to,
    )


def _value(candidate: DataCandidate, wanted: Wanted, quantity: Quantity) -> float | str | None:
    """The quantity for this candidate; none if it was not measured, or too long ago."""
    dataset, reading = candidate.dataset, None
    match quantity:
        case Quantity.JURISDICTION:
            return dataset.jurisdiction
        case Quantity.OWNER:
            return candidate.state.descriptor.owner
        case Quantity.SITE:
            return dataset.site
        case Quantity.SAMPLES:
            return dataset.samples
        case Quantity.QUALITY:
            return dataset.quality
        case Quantity.AGE_S:
            return max(0.0, wanted.now_s - dataset.fresh_at_s)
        case Quantity.PRICE_USD_PER_1K:
            return dataset.price_usd_per_1k
        case Quantity.SPEED_FLOPS:
            return candidate.compute.speed_flops
        case Quantity.MEMORY_BYTES:
            return candidate.compute.memory_bytes
        case Quantity.RTT_S:
            reading = candidate.inbound.rtt_s
        case Quantity.THROUGHPUT_BPS:
            reading = candidate.inbound.throughput_bps
        case _:
            assert_never(quantity)
    return None if reading is None else reading.value


def _missing(candidate: DataCandidate, wanted: Wanted, quantity: Quantity) -> str:
    if quantity not in LINK_QUANTITIES:
        return f"{candidate.dataset.site} states no finite number"
    inbound = candidate.inbound
    stale = inbound.stale_rtt_s if quantity is Quantity.RTT_S else inbound.stale_throughput_bps
    if stale is None:
        return "no live site has measured it"
    return (
        f"the newest reading is {stale.age_s(wanted.now_s):.0f} s old, "
        f"over the limit of {wanted.stale_after_s:.0f} s"
    )
