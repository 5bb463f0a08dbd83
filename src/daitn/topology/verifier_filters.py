"""Filters that a verifier must pass to measure one objective. All of them always run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from daitn.objects.access import AccessRequest, Ruling, published_rulings, refusals
from daitn.objects.decisions import Rejection
from daitn.objects.descriptors import TestSetDescriptor, VerifierDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Objective, TrainingIntent
from daitn.objects.model_needs import ColumnsNeeded, ModelNeeds
from daitn.objects.quorum import BALANCED, LEAST_ITEMS, PLAIN_SHARES, comparable_items, hides_labels
from daitn.objects.text import counted, decimals, some
from daitn.topology.fit import other_labels, topic_fit
from daitn.topology.relaxation import as_value
from daitn.topology.snapshot import SiteState, VerifierOption

__all__ = ["Measurable", "columns_measured", "verifiers_for"]


@dataclass(frozen=True)
class Measurable:
    """Requirements for a test set on which the model can be measured."""

    needs: ModelNeeds
    request: AccessRequest
    """The request on which the policies of test sets rule."""
    now_s: float
    compared: bool
    """Whether verifiers are compared, as a quorum has to."""

    def computes(self, metric: str) -> bool:
        """Whether the model's recipe computes a metric, as far as known."""
        return not self.needs.metrics or metric in self.needs.metrics

    def shared(self, test: TestSetDescriptor) -> tuple[str, ...]:
        """The metrics of a test set that the recipe computes."""
        return tuple(metric for metric in test.metrics if self.computes(metric))


def verifiers_for(
    sites: Sequence[tuple[SiteId, SiteState]],
    intent: TrainingIntent,
    index: int,
    wanted: Measurable,
) -> tuple[tuple[VerifierOption, ...], list[Rejection]]:
    """Test sets that can measure objective `index`, in the order of `sites`, and why the others
    cannot.

    A verifier that cannot is represented by its nearest test set, with one rejection per filter
    that fails. The topic must be the same: a broader or narrower test set would measure something
    other than what the owner set a target for.
    """
    objective = intent.objectives[index]
    options: list[VerifierOption] = []
    rejections: list[Rejection] = []
    for site, state in sites:
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


_NEEDS: Final = {"unexposed": "a test set of probes, which have a column or field `member`"}
"""What a test set needs for a metric that not every one of its schema has."""


_BESIDE: Final = {"unexposed": 1}
"""Columns of a test set that the metric reads itself, and no model."""


def _unmeasured(objective: Objective, test: TestSetDescriptor, wanted: Measurable) -> str:
    """Why a verifier does not measure a metric on a test set, and what it does measure."""
    metric, shared = objective.metric, wanted.shared(test)
    if not wanted.computes(metric):
        why = f"cannot measure {metric}, which the recipe does not compute"
    else:
        why = f"does not measure {metric} on {test.topic}"
    needs = f"; {metric} takes {_NEEDS[metric]}" if metric in _NEEDS else ""
    return f"{why}; it measures {', '.join(shared) or 'nothing'}{needs}"


def _misses(test: TestSetDescriptor, objective: Objective, wanted: Measurable) -> tuple[str, ...]:
    """The filters that a test set fails."""
    failed = (
        ("verifier-topic", test.topic != objective.topic),
        ("verifier-metric", objective.metric not in wanted.shared(test)),
        ("verifier-schema", test.test_schema != wanted.needs.test_schema),
        ("verifier-labels", bool(other_labels(test.labels, wanted.needs.labels))),
        ("verifier-columns", _odd_columns(test, objective, wanted)),
        ("verifier-quorum", wanted.compared and _comparable(test, objective.metric) < LEAST_ITEMS),
        ("verifier-policy", any(no.rule != "hours" for no in _refusals(test, wanted))),
        ("verifier-hours", any(no.rule == "hours" for no in _refusals(test, wanted))),
    )
    return tuple(name for name, fails in failed if fails)


def _comparable(test: TestSetDescriptor, metric: str) -> int:
    return comparable_items(metric, test.items, test.labels)


def _incomparable(test: TestSetDescriptor, metric: str) -> str:
    """Why a quorum cannot compare what is measured on a test set."""
    if metric not in (*PLAIN_SHARES, BALANCED):
        return f"the sampling error of {metric} is unknown"
    if metric == BALANCED and hides_labels(test.items, test.labels):
        return f"some labels of its test set on {test.topic} are too rare to be measured"
    worth = "" if metric in PLAIN_SHARES else f", for {metric} worth {_comparable(test, metric)}"
    have = counted(test.items, "item")
    return f"its test set on {test.topic} has {have}{worth}, and a quorum needs {LEAST_ITEMS}"


def _no_quorum(site: SiteId, test: TestSetDescriptor, metric: str) -> Rejection:
    return Rejection(
        candidate=site,
        filter="verifier-quorum",
        reason=f"verifier {site} cannot be compared with others: {_incomparable(test, metric)}",
        field="verification.quorum",
    )


def _columns(test: TestSetDescriptor, metric: str) -> int | None:
    """Number of columns that a model reads when it is measured by a metric; none if unknown."""
    return None if test.columns is msgspec.UNSET else test.columns - _BESIDE.get(metric, 0)


def _odd_columns(test: TestSetDescriptor, objective: Objective, wanted: Measurable) -> bool:
    columns, needed = _columns(test, objective.metric), wanted.needs.columns
    return needed is not None and columns is not None and not needed.fits(columns)


def columns_measured(options: Iterable[VerifierOption], metric: str) -> frozenset[int]:
    """Numbers of columns on which test sets measure a metric; empty if one of them is unknown."""
    found = {_columns(option.test, metric) for option in options}
    return frozenset() if None in found else frozenset(n for n in found if n is not None)


def _refusals(test: TestSetDescriptor, wanted: Measurable) -> tuple[Ruling, ...]:
    return refusals(published_rulings(test.policy, wanted.request, wanted.now_s))


def _denied(site: SiteId, no: Ruling, field: str) -> Rejection:
    return Rejection(
        candidate=site,
        filter="verifier-hours" if no.rule == "hours" else "verifier-policy",
        reason=f"the owner of the test set {no.reason}",
        field=no.field or field,
    )


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
        reason = f"verifier {site} is not connected now"
        failures.append(
            Rejection(candidate=site, filter="verifier-alive", reason=reason, field=field)
        )
    if cordon := state.descriptor.cordon:
        reason = f"verifier {site} {cordon}"
        failures.append(
            Rejection(candidate=site, filter="verifier-cordoned", reason=reason, field=field)
        )
    price = state.descriptor.measuring_usd_per_hour
    if price and intent.budget.cost_usd == 0.0:
        reason = f"verifier {site} asks {decimals(price)} USD for an hour, and budget.cost_usd is 0"
        failures.append(
            Rejection(
                candidate=site, filter="verifier-cost", reason=reason, field="budget.cost_usd"
            )
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
    """Whether another objective has this topic and metric: no two may."""
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
    """The nearest test set's failed filters."""
    site, field, objective = state.descriptor.site, f"objectives[{index}]", intent.objectives[index]
    if not ranked:
        reason = f"verifier {site} has no test set"
        return [Rejection(candidate=site, filter="verifier-topic", reason=reason, field=field)]
    nearest, needs = ranked[0], wanted.needs
    of_columns = needs.columns or ColumnsNeeded()
    free = not _tested_already(intent, index, nearest.topic)
    possible = {
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
            reason=f"verifier {site} {_unmeasured(objective, nearest, wanted)}",
            field=f"{field}.metric",
            relax_to=as_value(shared[0]) if (shared := wanted.shared(nearest)) else "",
        ),
        "verifier-schema": Rejection(
            candidate=site,
            filter="verifier-schema",
            reason=f"recipe {intent.model.recipe} is measured on {needs.test_schema}, "
            f"the test set on {nearest.topic} is {nearest.test_schema}",
            field=field,
        ),
        "verifier-labels": Rejection(
            candidate=site,
            filter="verifier-labels",
            reason=f"the test set on {nearest.topic} has labels that are not among "
            f"{needs.labels_field}: {some(other_labels(nearest.labels, needs.labels))}",
            field=needs.labels_field,
        ),
        "verifier-columns": Rejection(
            candidate=site,
            filter="verifier-columns",
            reason=f"the test set on {nearest.topic} has "
            f"{counted(_columns(nearest, objective.metric) or 0, 'column')}, {of_columns.field} "
            f"is for {of_columns}; {of_columns.fix}",
            field=of_columns.field,
        ),
        "verifier-quorum": _no_quorum(site, nearest, objective.metric),
    }
    missed = [possible[name] for name in _misses(nearest, objective, wanted) if name in possible]
    return missed + [_denied(site, no, field) for no in _refusals(nearest, wanted)]
