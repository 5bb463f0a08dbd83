"""Why the job went as it did: its algorithm, its decisions, and refusals."""

from __future__ import annotations

from collections.abc import Iterator

from daitn.oam.report.facts import ReportFacts
from daitn.oam.report.html import Safe, bullets, inline, joined, section, table, tag
from daitn.oam.words import (
    REJECTED_COLUMNS,
    expected_words,
    rejected_rows,
    setback_lines,
    values,
)
from daitn.objects.decisions import Decision, Rejection, SiteBelief
from daitn.objects.jobs import Decided

__all__ = ["algorithm_section", "decisions_section", "refused_section"]

_FIRST, _LAST = 4, 12
"""Number of decisions shown."""
_MOST = 20
"""Number of rows of other tables."""


def algorithm_section(facts: ReportFacts) -> Safe | None:
    """The chosen algorithm, and its alternatives."""
    if not facts.decisions:
        return None
    asked = facts.intent.training.algorithm if facts.intent else None
    taken = tag("b", facts.job.algorithm)
    sentence = joined(("The model was trained by ", taken, "."))
    if asked is not None:
        sentence = joined((sentence, f" The intent asks for {asked}."))
    parts = [tag("p", sentence)]
    weighed = next((d.decision.algorithms for d in facts.decisions if d.decision.algorithms), ())
    if weighed:
        rows = [(one.plan, f"{one.expected_s:.1f}", f"{one.chance:.0%}") for one in weighed]
        parts.append(tag("p", "What was expected of each when the job began:"))
        parts.append(table(("algorithm", "seconds", "chance to reach"), rows, (1, 2)))
    first = next((one for one in facts.decisions if one.decision.compared), None)
    if first is not None:
        parts.append(tag("p", f"Routes that were compared at decision {first.number}:"))
        parts.append(
            table(("route", "until its end (chance)", ""), _compared(first.decision), (1,))
        )
    if lessons := facts.decisions[0].decision.experience:
        parts.append(bullets(lessons[:_MOST]))
    return section("algorithm", "How it was trained, and why", *parts)


def _compared(decision: Decision) -> Iterator[tuple[object, ...]]:
    chosen = next((s for s in decision.ranking if s.candidate == decision.chosen), None)
    if chosen is not None and chosen.expected_s is not None:
        mine = expected_words(chosen.expected_s, chosen.terms.get("reach", 0.0))
        yield tag("b", chosen.candidate), mine, "chosen"
    for one in decision.compared[:_MOST]:
        yield one.plan, expected_words(one.expected_s, one.chance), ""


def decisions_section(facts: ReportFacts) -> Safe | None:
    """Every decision in one line, and the beliefs at the last one."""
    made = facts.decisions
    if not made:
        return None
    shown = made if len(made) <= _FIRST + _LAST else (*made[:_FIRST], *made[-_LAST:])
    rows = [
        (
            str(one.number),
            f"{one.at_s - facts.job.submitted_at_s:.1f}",
            f"{one.visits_before:,}",
            _chosen(one),
            values(one.route.visits[-1].expected) if one.route and one.route.visits else one.why,
        )
        for one in shown
    ]
    columns = ("", "after s", "visits before", "decided", "expected at its end")
    parts = [table(columns, rows, (0, 1, 2))]
    if len(shown) < len(made):
        note = f"{len(made) - len(shown):,} of {len(made):,} decisions are left out."
        parts.append(tag("p", note, class_="soft"))
    believing = next((one for one in reversed(made) if one.decision.beliefs), None)
    if believing is not None:
        parts.append(tag("h3", f"What the network believed at decision {believing.number}"))
        beliefs = believing.decision.beliefs
        columns = ("data", "visits", "one epoch", "seconds", "expected gain ± how sure")
        parts.append(table(columns, [_belief(one) for one in beliefs[:_MOST]], (1, 2, 3)))
        if len(beliefs) > _MOST:
            parts.append(tag("p", f"{len(beliefs) - _MOST:,} more left out.", class_="soft"))
    return section("decisions", "What was decided", *parts)


def _chosen(one: Decided) -> str:
    if one.waiting_for:
        return f"waits for {one.waiting_for}"
    if one.decision.chosen is None and one.round is not None:
        return f"{len(one.round.visits)} sites at once"
    return one.decision.chosen or "no more visits"


def _belief(one: SiteBelief) -> tuple[str, ...]:
    gains = ", ".join(
        f"{name} {gain:+.2f} ± {one.gain_sd.get(name, 0.0):.2f}" for name, gain in one.gain.items()
    )
    return one.candidate, f"{one.visits:,}", f"{one.examples:,}", f"{one.expected_s:.1f}", gains


def refused_section(facts: ReportFacts) -> Safe | None:
    """Exclusions, by whom and why; sites that failed."""
    parts: list[Safe] = []
    if facts.job.excluded:
        names = joined(map(inline, facts.job.excluded[:_MOST]), ", ")
        more = len(facts.job.excluded) - _MOST
        tail = f" and {more:,} more" if more > 0 else ""
        parts.append(tag("p", "Left out after failures, refusals or losses: ", names, tail, "."))
    if setbacks := setback_lines(facts.job):
        parts += [tag("p", "Work of sites that failed or does not count:"), bullets(setbacks)]
    if facts.job.disagreements:
        lines = [str(one) for one in facts.job.disagreements[:_MOST]]
        parts += [tag("p", "Verifiers that a quorum contradicts:"), bullets(lines)]
    if facts.job.detail and facts.job.state.final:
        sentences = [one.strip() for one in facts.job.detail.split(";") if one.strip()]
        parts.append(bullets(sentences[:_MOST]))
    rows = rejected_rows(_rejections(facts))
    if rows:
        parts.append(table(REJECTED_COLUMNS, rows[:_MOST]))
        if len(rows) > _MOST:
            parts.append(tag("p", f"{len(rows) - _MOST:,} more left out.", class_="soft"))
    if not parts:
        parts = [tag("p", "Nothing: all data sets and verifiers of the topic were eligible.")]
    ended = facts.job.state.final and bool(facts.job.detail)
    title = "How it ended, and what was left out" if ended else "What was left out, and why"
    return section("refused", title, *parts)


def _rejections(facts: ReportFacts) -> list[Rejection]:
    """The latest statement on each candidate. Routes are left out: there are always worse ones."""
    latest: dict[tuple[str, str], Rejection] = {}
    assessed = facts.job.assessment.rejections if facts.job.assessment else ()
    for group in (assessed, *(one.decision.rejections for one in facts.decisions)):
        for rejection in group:
            latest[rejection.candidate, rejection.filter] = rejection
    return list(latest.values())
