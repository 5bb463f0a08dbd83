"""The model's origin: signed entries, its verifiers, and the privacy that it spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from daitn.control.value.descent import START, DescentStep, Point
from daitn.oam.report.facts import ReportFacts
from daitn.oam.report.html import Safe, Shown, joined, section, table, tag
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Entry, Merge, Origin, Visit
from daitn.objects.text import counted

__all__ = ["lineage_section", "privacy_section"]

_FIRST, _LAST = 5, 10
"""Number of steps shown."""
_CHIPS = 16
"""Number of sites of a round that are named."""
_SHORT = 10
"""Number of characters of a digest."""


def lineage_section(facts: ReportFacts) -> Safe:
    """The model's descent, step by step, with the measurements after each."""
    proof = tag("p", facts.proof.sentence, class_="good" if facts.proof.holds else "bad")
    if not facts.entries:
        proof = tag("p", facts.proof.sentence, class_="soft")
    steps = facts.descent.steps
    items = [_origin(facts)] if facts.entries else []
    cut = len(steps) - _FIRST - _LAST
    for number, step in enumerate(steps):
        if cut > 0 and _FIRST <= number < _FIRST + cut:
            if number == _FIRST:
                items.append(tag("li", f"{counted(cut, 'step')} left out", class_="gap soft"))
            continue
        items.append(_step(facts, step, number))
    abandoned = len({v.model for v in facts.job.route} - facts.kept) if facts.kept else 0
    words = []
    if abandoned:
        words.append(f"{counted(abandoned, 'model')} left behind did not lead to this one.")
    if facts.job.model is not None:
        words.append("Digests are BLAKE3 of entries, keys Ed25519; both are cut short here.")
    return section(
        "lineage",
        "Where the model comes from",
        proof,
        tag("ol", *items, class_="chain") if items else "",
        tag("p", " ".join(words), class_="soft") if words else "",
    )


def _origin(facts: ReportFacts) -> Safe:
    first = facts.descent.first
    made = next((e for e in facts.entries if e.digest == first), None)
    if made is not None and isinstance(made.fact, Origin):
        text = joined(("Made fresh at ", tag("b", made.fact.site), f" from seed {made.fact.seed}"))
    elif first == START:
        text = Safe("Brought by its owner")
    else:
        text = Safe("The earliest model that is known")
    return tag("li", text, _signed(made), _measured(facts, first), class_="made")


def _step(facts: ReportFacts, step: DescentStep, number: int) -> Safe:
    fact = step.made.fact
    if isinstance(fact, Visit):
        text = joined(
            (
                f"{number + 1}. Trained at ", tag("b", fact.site), " on ", fact.dataset,
                f", {counted(fact.examples, 'example')}",
            )
        )  # fmt: skip
        return tag("li", text, _signed(step.made), _measured(facts, step.after))
    assert isinstance(fact, Merge)
    text = joined(
        (
            f"{number + 1}. Trained at {len(step.visits)} sites at once, merged at ",
            tag("b", fact.site),
        )
    )
    how = tag("span", f" by {fact.rule.reduction}, outer step {fact.rule.outer}", class_="soft")
    chips = tag("div", *_chips(step), class_="chips")
    return tag("li", text, how, chips, _signed(step.made), _measured(facts, step.after))


def _chips(step: DescentStep) -> Iterator[Safe]:
    for entry in step.visits[:_CHIPS]:
        visit = entry.fact
        assert isinstance(visit, Visit)
        yield tag("span", f"{visit.site}: {visit.examples:,}", title=f"entry {entry.digest}")
    if len(step.visits) > _CHIPS:
        yield tag("span", f"and {len(step.visits) - _CHIPS} more")


def _signed(entry: Entry | None) -> Safe:
    if entry is None:
        return Safe("")
    return tag(
        "div",
        joined(
            (
                "entry ", tag("code", f"{entry.digest[:_SHORT]}…"), " signed by ", entry.fact.site,
                ", key ", tag("code", f"{entry.public_key[:_SHORT]}…"),
            )
        ),
        class_="soft",
    )  # fmt: skip


def _measured(facts: ReportFacts, point: Point | None) -> Safe:
    tests = facts.descent.measured.get(point, {}) if point is not None else {}
    names = {(o.topic, o.metric): o.name for o in facts.job.objectives}
    found = [
        f"{names.get(test, test[0])} {fact.value:.3f} ± {fact.standard_error:.3f} by {fact.site}"
        for test, fact in tests.items()
    ]
    return tag("div", f"measured: {', '.join(found)}") if found else Safe("")


def privacy_section(facts: ReportFacts) -> Safe | None:
    """What visits may reveal about a record, if trained with differential privacy."""
    spent: dict[tuple[SiteId, str], list[tuple[float, float]]] = defaultdict(list)
    visits = [e.fact for e in facts.entries if isinstance(e.fact, Visit)]
    for visit in visits:
        if visit.privacy is not None:
            spent[visit.site, visit.dataset].append((visit.privacy.epsilon, visit.privacy.delta))
    if not spent:
        return None
    rows: list[tuple[Shown, ...]] = [
        (
            site,
            dataset,
            f"{len(bounds):,}",
            f"{max(epsilon for epsilon, _ in bounds):.3g}",
            f"{sum(epsilon for epsilon, _ in bounds):.3g}",
            f"{sum(delta for _, delta in bounds):.1g}",
        )
        for (site, dataset), bounds in sorted(spent.items())
    ]
    columns = ("site", "data", "visits", "most ε of a visit", "ε together, at most", "δ together")
    note = (
        "Differential privacy: what all these visits may tell of any one record. Sums are upper "
        "bounds; sites account more closely."
    )
    without = sum(visit.privacy is None for visit in visits)
    if without:
        note += f" {counted(without, 'visit')} had no such bound."
    return section(
        "privacy",
        "Privacy spent",
        table(columns, rows[:64], (2, 3, 4, 5)),
        tag("p", note, class_="soft"),
    )
