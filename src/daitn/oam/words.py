"""Facts in words, for commands, reports and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import JobView
from daitn.objects.text import counted, some
from daitn.objects.value import Valuation, ValueOfData
from daitn.topology.qrrt.served import ServedModel

__all__ = [
    "REJECTED_COLUMNS",
    "doubts",
    "expected_words",
    "rejected_rows",
    "setback_lines",
    "size",
    "value_words",
    "values",
]

_SHORT_S = 10.0
"""Shorter times are shown with tenths."""


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


REJECTED_COLUMNS = ("what", "filter", "reason", "would need")


def rejected_rows(rejections: Iterable[Rejection]) -> list[tuple[str, ...]]:
    """Exclusions, one row for each filter and field, with the nearest miss."""
    groups: dict[tuple[str, str], list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        groups[rejection.filter, rejection.field].append(rejection)
    rows: list[tuple[str, ...]] = []
    for (name, field), group in groups.items():
        nearest = min(group, key=lambda r: r.shortfall)
        candidates = list(dict.fromkeys(r.candidate for r in group))
        whose = f"{nearest.candidate}: " if len(candidates) > 1 else ""
        fix = f"{field}: {nearest.relax_to}" if field and nearest.relax_to else field or "-"
        rows.append((some(candidates), name, whose + nearest.reason, fix))
    return rows


def expected_words(seconds: float, chance: float) -> str:
    """For instance `22 s (80%)`: seconds until the targets hold, with the chance of that, or until
    its end."""
    return (
        f"{seconds:.1f} s ({chance:.0%})"
        if seconds < _SHORT_S
        else f"{seconds:.0f} s ({chance:.0%})"
    )


def values(expected: Mapping[str, float]) -> str:
    """Objectives with their values."""
    return ", ".join(f"{name} {value:.2f}" for name, value in expected.items())


def setback_lines(job: JobView) -> list[str]:
    """Which sites' work failed or does not count, and why, latest last."""
    ends = {one.site: one for one in job.setbacks}
    return [
        f"{one}, {one.at_s - job.submitted_at_s:.0f} s after it began"
        f"{'; left out' if one.site in job.excluded and ends[one.site] is one else ''}"
        for one in job.setbacks
    ]


def doubts(one: ServedModel) -> dict[str, str]:
    """What verifiers say against a deployment, and against each other, by kind."""

    def say(what: str, units: tuple[SiteId, ...]) -> str:
        alone = len(units) < len(one.measured_by)
        of_all = f", {len(units)} of {counted(len(one.measured_by), 'verifier')}" if alone else ""
        return f"{what}, by {', '.join(units)}{of_all}"

    worse = tuple(unit for unit in one.degraded_by if unit not in one.two_faced_by)
    against = (
        ("two-faced", "it answers examinations better than single questions", one.two_faced_by),
        ("degraded", "it answers significantly worse than before", worse),
        ("unanswered", "it answers examinations, but not most single questions", one.unanswered_by),
    )
    said = {kind: say(what, units) for kind, what, units in against if units}
    if one.contradicted:
        by = ", ".join(one.contradicted)
        said["contradicted"] = f"most verifiers contradict the accuracy by {by}"
    return said


def value_words(value: ValueOfData) -> str:
    """How contributions were determined, in sentences."""
    if not value.credits:
        return f"No contributions: {value.why or 'no visit led to the model yet'}."
    sentences = [
        "Each part is what, by the measurements, this data added to the model, with one "
        "standard error; a negative part did harm."
    ]
    unmeasured = value.rounds - value.rounds_measured
    if value.rounds_measured:
        sentences.append(
            f"{counted(value.rounds_measured, 'round')} divided by Shapley values, from "
            f"{counted(value.coalitions, 'model')} merged of some sites' updates and measured."
        )
    if unmeasured:
        sentences.append(f"{counted(unmeasured, 'round')} divided by examples, which says less.")
    if value.valuation is Valuation.UNDER_WAY:
        sentences.append("Measuring is under way.")
    if value.why:
        sentences.append(f"Not all was measured: {value.why}.")
    return " ".join(sentences)
