"""Filters that a verification unit has to pass to measure one objective. All of them run."""

from __future__ import annotations

from dataclasses import dataclass

from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import TestSetDescriptor, VerifierDescriptor
from daitn.objects.intents import Objective, TrainingIntent
from daitn.topology.fit import other_labels, some, topic_fit
from daitn.topology.relaxation import as_value
from daitn.topology.snapshot import Drrt, SiteState, VerifierOption

__all__ = ["Measurable", "verifiers_for"]


@dataclass(frozen=True)
class Measurable:
    """What a test set has to be like for the model to be measured on it."""

    test_schema: str
    labels: tuple[str, ...] = ()
    """Labels that the model tells apart; empty: it takes any."""
    labels_field: str = ""
    """The field of the intent that names them."""


def verifiers_for(
    snapshot: Drrt, intent: TrainingIntent, index: int, wanted: Measurable
) -> tuple[tuple[VerifierOption, ...], list[Rejection]]:
    """Test sets on which objective `index` can be measured, by site, and why others cannot serve.

    A verifier that cannot serve is told by the test set that comes nearest, one rejection per
    filter that it fails. The topic has to be the same: a broader or narrower test set would
    measure something else than what the owner set a target for.
    """
    objective = intent.objectives[index]
    options: list[VerifierOption] = []
    rejections: list[Rejection] = []
    for site, state in sorted(snapshot.sites.items()):
        verifier = state.descriptor.verifier
        if verifier is None:
            continue
        failures = _unit_rejections(state, verifier, intent, index)
        ranked = sorted(
            verifier.tests, key=lambda test: _nearness(test, objective, wanted), reverse=True
        )
        fitting = [test for test in ranked if not _misses(test, objective, wanted)]
        if not fitting:
            failures += _test_rejections(state, ranked, intent, index, wanted)
        rejections += failures
        if not failures:
            options += [VerifierOption(site=site, test=test) for test in fitting]
    return tuple(options), rejections


def _misses(test: TestSetDescriptor, objective: Objective, wanted: Measurable) -> tuple[str, ...]:
    """The filters that a test set fails."""
    failed = (
        ("verifier-topic", test.topic != objective.topic),
        ("verifier-metric", objective.metric not in test.metrics),
        ("verifier-schema", test.test_schema != wanted.test_schema),
        ("verifier-labels", bool(other_labels(test.labels, wanted.labels))),
    )
    return tuple(name for name, fails in failed if fails)


def _nearness(
    test: TestSetDescriptor, objective: Objective, wanted: Measurable
) -> tuple[int, float, str]:
    return (
        -len(_misses(test, objective, wanted)),
        topic_fit(test.topic, objective.topic),
        test.topic,
    )


def _unit_rejections(
    state: SiteState, verifier: VerifierDescriptor, intent: TrainingIntent, index: int
) -> list[Rejection]:
    site, field = state.descriptor.site, f"objectives[{index}]"
    failures = []
    if not state.alive:
        reason = f"verifier {site} is not there now"
        failures.append(
            Rejection(candidate=site, filter="verifier-alive", reason=reason, field=field)
        )
    if intent.model.recipe not in verifier.recipes:
        installed = ", ".join(sorted(verifier.recipes)) or "none"
        failures.append(
            Rejection(
                candidate=site,
                filter="verifier-recipe",
                reason=f"verifier {site} cannot run recipe {intent.model.recipe}; "
                f"installed: {installed}",
                field=field,
            )
        )
    return failures


def _tested_already(intent: TrainingIntent, index: int, topic: str) -> bool:
    """Whether another objective measures the same on this topic: no two may."""
    metric = intent.objectives[index].metric
    others = (o for position, o in enumerate(intent.objectives) if position != index)
    return any((o.topic, o.metric) == (topic, metric) for o in others)


def _test_rejections(
    state: SiteState,
    ranked: list[TestSetDescriptor],
    intent: TrainingIntent,
    index: int,
    wanted: Measurable,
) -> list[Rejection]:
    """What the test set that comes nearest misses, filter by filter."""
    site, field, objective = state.descriptor.site, f"objectives[{index}]", intent.objectives[index]
    if not ranked:
        reason = f"verifier {site} has no test set"
        return [Rejection(candidate=site, filter="verifier-topic", reason=reason, field=field)]
    nearest = ranked[0]
    free = not _tested_already(intent, index, nearest.topic)
    told = {
        "verifier-topic": Rejection(
            candidate=site,
            filter="verifier-topic",
            reason=f"verifier {site} does not test {objective.topic}; "
            f"it tests {', '.join(dict.fromkeys(test.topic for test in ranked))}",
            field=f"{field}.topic",
            shortfall=1.0 - topic_fit(nearest.topic, objective.topic),
            unit="topic distance",
            relax_to=as_value(nearest.topic) if free else "",
        ),
        "verifier-metric": Rejection(
            candidate=site,
            filter="verifier-metric",
            reason=f"verifier {site} does not measure {objective.metric} on {nearest.topic}; "
            f"it measures {', '.join(nearest.metrics) or 'nothing'}",
            field=f"{field}.metric",
            relax_to=as_value(nearest.metrics[0]) if nearest.metrics else "",
        ),
        "verifier-schema": Rejection(
            candidate=site,
            filter="verifier-schema",
            reason=f"recipe {intent.model.recipe} is measured on {wanted.test_schema}, "
            f"the test set on {nearest.topic} is {nearest.test_schema}",
            field=field,
        ),
        "verifier-labels": Rejection(
            candidate=site,
            filter="verifier-labels",
            reason=f"the test set on {nearest.topic} has labels that are not among "
            f"{wanted.labels_field}: {some(other_labels(nearest.labels, wanted.labels))}",
            field=wanted.labels_field,
        ),
    }
    return [told[name] for name in _misses(nearest, objective, wanted)]
