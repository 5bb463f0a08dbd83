"""MS-DRRT: the part of a DRRT that matters to one model (paper, section III-B).

Every filter examines every candidate, so an owner sees all obstacles at once. A rejection names the
field of the intent that would have to change and the value at which this filter would pass;
`daitn.topology.relaxation` defines how such values are written and applied.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from daitn.objects.access import AccessRequest
from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import ObjectiveName, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.topology.data_filters import DataCandidate, Wanted, rejections_of
from daitn.topology.fit import label_coverage, pooled_labels, topics_fit
from daitn.topology.inbound import Inbound, inbound_links, is_fresh
from daitn.topology.relaxation import as_value
from daitn.topology.severed import severed
from daitn.topology.snapshot import DataOption, Drrt, MsDrrt, SiteState, VerifierOption
from daitn.topology.verifier_filters import Measurable, verifiers_for

__all__ = ["STALE_AFTER_S", "relevant_to"]

STALE_AFTER_S = 900.0
"""Readings older than this are ignored. Delay, loss and throughput of Internet paths hold for
minutes up to hours; a quarter of an hour lies between. Source: Zhang, Duffield, Paxson and Shenker,
"On the constancy of Internet path properties", Internet Measurement Workshop 2001."""


def relevant_to(
    snapshot: Drrt,
    intent: TrainingIntent,
    *,
    data_schema: str,
    test_schema: str,
    now_s: float,
    memory_bytes: int,
    stale_after_s: float = STALE_AFTER_S,
    labels: tuple[str, ...] = (),
    labels_field: str = "",
    private: bool = False,
) -> MsDrrt:
    """Cut the topology for `intent`.

    `data_schema`, `test_schema` and `memory_bytes` are what the intent's recipe needs, `labels`
    those that its model distinguishes, `labels_field` the field that names them, and `private`
    whether it can be trained with differential privacy (see `WorkNeeds`). Readings older than
    `stale_after_s` at `now_s` are reported as stale and not used: a requirement that depends on one
    fails, a queue that depends on one is 0. Coverage is 0 if nobody can measure.
    """
    rejections: list[Rejection] = []
    verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]] = {}
    request = AccessRequest(intent.owner, intent.model.recipe, intent.purpose, measures=True)
    measured = Measurable(test_schema, request, now_s, labels, labels_field)
    for index, name in enumerate(intent.objective_names()):
        found, refused = verifiers_for(snapshot, intent, index, measured)
        verifiers[name] = found
        rejections.extend(refused)
    wanted = Wanted(
        intent=intent,
        data_schema=data_schema,
        memory_bytes=memory_bytes,
        now_s=now_s,
        stale_after_s=stale_after_s,
        places=_places(snapshot, verifiers),
        severed=lambda one, other: severed(snapshot, one, other, now_s, stale_after_s),
        labels=labels,
        labels_field=labels_field,
        private=private,
    )
    options: list[DataOption] = []
    tested = {name: pooled_labels(v.test for v in found) for name, found in verifiers.items()}
    for candidate in _candidates(snapshot, intent, now_s, stale_after_s):
        failures = rejections_of(candidate, wanted)
        rejections.extend(failures)
        if not failures:
            options.append(_option(candidate, wanted, tested))
    options.sort(key=lambda option: option.id)
    rejections.extend(_pinned_rejections(snapshot, intent, options, rejections))
    return MsDrrt(
        snapshot=snapshot,
        options=tuple(options),
        verifiers=verifiers,
        rejections=tuple(rejections),
    )


def _places(
    snapshot: Drrt, verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]]
) -> dict[ObjectiveName, frozenset[tuple[SiteId, str]]]:
    """Per objective, the site and jurisdiction of each verifier that can measure it."""
    return {
        name: frozenset(
            (option.site, snapshot.sites[option.site].descriptor.jurisdiction) for option in found
        )
        for name, found in verifiers.items()
    }


def _candidates(
    snapshot: Drrt, intent: TrainingIntent, now_s: float, stale_after_s: float
) -> Iterator[DataCandidate]:
    inbound = inbound_links(snapshot, intent.requirements, now_s, stale_after_s)
    for site, state in sorted(snapshot.sites.items()):
        for dataset in sorted(state.descriptor.datasets, key=lambda dataset: dataset.name):
            yield DataCandidate(state=state, dataset=dataset, inbound=inbound.get(site, Inbound()))


def _option(
    candidate: DataCandidate,
    wanted: Wanted,
    tested: dict[ObjectiveName, dict[str, int]],
) -> DataOption:
    dataset, compute = candidate.dataset, candidate.state.descriptor.compute
    assert compute is not None, "the compute filter passed"
    return DataOption(
        site=candidate.state.descriptor.site,
        dataset=dataset,
        compute=compute,
        fit={
            ObjectiveName(objective.name): topics_fit(dataset.topics, objective.topic)
            for objective in wanted.intent.objectives
        },
        coverage={
            name: label_coverage(dataset.labels, items) if wanted.places[name] else 0.0
            for name, items in tested.items()
        },
        queue=_queue(candidate.state, wanted),
    )


def _queue(state: SiteState, wanted: Wanted) -> int:
    load = state.load
    if load is None or not is_fresh(load.queue, wanted.now_s, wanted.stale_after_s):
        return 0
    return max(0, int(load.queue.value))


def _pinned_rejections(
    snapshot: Drrt,
    intent: TrainingIntent,
    options: list[DataOption],
    rejections: list[Rejection],
) -> Iterator[Rejection]:
    """Sites of a pinned route at which the model cannot be trained."""
    usable = sorted({option.site for option in options})
    for index, visit in enumerate(intent.route):
        if visit.site in usable:
            continue
        near = difflib.get_close_matches(visit.site, usable, n=1)
        yield Rejection(
            candidate=visit.site,
            filter="pinned",
            reason=f"the stated route visits {visit.site}, "
            + _absence(snapshot.sites.get(visit.site), rejections),
            field=f"route[{index}].site",
            relax_to=as_value(near[0]) if near else "",
        )


def _absence(state: SiteState | None, rejections: list[Rejection]) -> str:
    if state is None:
        return "which is not in the network"
    if not state.alive:
        return "which is not connected now"
    if not state.descriptor.datasets:
        return "which holds no data set"
    at = f"{state.descriptor.site}/"
    told = [f"{r.candidate}: {r.reason}" for r in rejections if r.candidate.startswith(at)]
    return f"none of whose data sets can be used: {'; '.join(told)}"
