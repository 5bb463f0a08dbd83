"""Where the model was, and what it gained and forgot there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from daitn.oam.pictures.chart import FULL_TINT
from daitn.oam.pictures.flows import MOST_SITES, Move, flows
from daitn.oam.pictures.job_chart import ChartPoint, job_chart
from daitn.oam.pictures.route_map import Map
from daitn.oam.pictures.visits import LOSS_COLOUR, objective_colour
from daitn.oam.report.facts import ReportFacts
from daitn.oam.report.html import Safe, Shown, joined, section, table, tag
from daitn.oam.words import size
from daitn.objects.identifiers import SiteId
from daitn.objects.jobs import VisitView
from daitn.objects.lineage import Merge
from daitn.objects.text import counted, some

__all__ = ["labels_section", "progress_section", "stages", "visits_section"]

_MOST_POINTS = 400
"""Points of the chart."""
_MOST_ARROWS = 14
"""Arrows of the map that shows each visit separately; more are aggregated."""
_FIRST, _LAST, _NOTABLE = 12, 16, 12
"""Rows of the table of visits: from both ends, and those with the largest effect on the model."""
_MOST_LABELS = 24
_NAMED = 4


@dataclass(frozen=True)
class Stage:
    """A visit, or the visits of a round: what one measurement is about."""

    number: int
    visits: tuple[VisitView, ...]

    @property
    def first(self) -> VisitView:
        return self.visits[0]

    @property
    def where(self) -> str:
        names = [visit.site for visit in self.visits]
        return some(names, _NAMED)

    @property
    def moved(self) -> float:
        return max((abs(gain) for gain in self.first.gains.values()), default=0.0)


def stages(route: Sequence[VisitView]) -> tuple[Stage, ...]:
    """The route's stages in order."""
    found: list[list[VisitView]] = []
    for visit in route:
        if visit.round and found and found[-1][0].round == visit.round:
            found[-1].append(visit)
        else:
            found.append([visit])
    return tuple(Stage(n, tuple(visits)) for n, visits in enumerate(found, 1))


def progress_section(facts: ReportFacts) -> Safe | None:
    """Map and chart."""
    made = stages(facts.job.route)
    if not made:
        return None
    points = [*_untrained(facts), *(_point(facts, stage) for stage in made)]
    every = -(-len(points) // _MOST_POINTS)
    shown = points[:-1:every] + points[-1:]
    note = f"Of {len(points):,} measured models, every {every}th is drawn. " if every > 1 else ""
    note += "Dashed: targets. Bars: one standard error. "
    if any(not point.kept for point in shown):
        note += "Hollow: models that were left behind."
    chart = tag("div", Safe(job_chart(facts.job, shown)), class_="scroll")
    return section(
        "route",
        "Where the model went",
        tag("div", _map(facts), class_="scroll"),
        _map_note(facts),
        tag("h3", "What it could after each stage"),
        chart,
        tag("p", note, class_="soft"),
    )


def _untrained(facts: ReportFacts) -> Iterator[ChartPoint]:
    if facts.job.untrained:
        yield ChartPoint(0, "untrained", facts.job.untrained, {}, True)


def _point(facts: ReportFacts, stage: Stage) -> ChartPoint:
    visit = stage.first
    where = visit.site if len(stage.visits) == 1 else f"round {visit.round}"
    return ChartPoint(stage.number, where, visit.values, _errors(facts, visit), _kept(facts, visit))


def _errors(facts: ReportFacts, visit: VisitView) -> dict[str, float]:
    measured = facts.measured.get(visit.model, {})
    return {name: fact.standard_error for name, fact in measured.items()}


def _kept(facts: ReportFacts, visit: VisitView) -> bool:
    return not facts.kept or visit.model in facts.kept


def _in_rounds(facts: ReportFacts) -> bool:
    return any(visit.round for visit in facts.job.route)


def _map(facts: ReportFacts) -> Safe:
    """Each visit with its number if that is legible; otherwise aggregated journeys."""
    states = {state.descriptor.site: state for state in facts.sites}
    visits = Counter(visit.site for visit in facts.job.route)
    if len(facts.job.route) <= _MOST_ARROWS and not _in_rounds(facts) and states:
        near = [s for s in facts.sites if s.descriptor.datasets or s.descriptor.verifier]
        body = "\n".join(Map(facts.job, near[:MOST_SITES], 330 + 262j).drawn())
        label = "Map of the sites and the model's route"
        return Safe(
            f'<svg role="img" aria-label="{label}" viewBox="0 0 660 524" class="wide">{body}</svg>'
        )
    order = [site for site, _ in visits.most_common(MOST_SITES)]
    others = [s for s in states if s not in visits and _takes_part(facts, s)]
    order += others[: MOST_SITES - len(order)]
    return Safe(flows(order, states, visits, _moves(facts)))


def _takes_part(facts: ReportFacts, site: SiteId) -> bool:
    return any(entry.fact.site == site for entry in facts.entries[-64:])


def _moves(facts: ReportFacts) -> Counter[Move]:
    found: Counter[Move] = Counter()
    merged_at = {e.fact.model_out: e.fact.site for e in facts.entries if isinstance(e.fact, Merge)}
    before: SiteId | None = None
    for stage in stages(facts.job.route):
        at = merged_at.get(stage.first.model, stage.first.site)
        for visit in stage.visits:
            if before is not None:
                found[before, visit.site] += 1
            found[visit.site, at] += 1
        before = at
    return found


def _map_note(facts: ReportFacts) -> Safe:
    sites = len({visit.site for visit in facts.job.route})
    words = "Filled: visited. Squares measure models and train none."
    if not _in_rounds(facts) and len(facts.job.route) <= _MOST_ARROWS:
        words += " Numbers: the order of visits. Colours: the target that gained most; red: none."
    if _in_rounds(facts):
        words += " In a round, models go from the sites to the one that merges them, and back."
    if sites > MOST_SITES:
        words += f" The {MOST_SITES} most visited of {sites:,} sites are drawn."
    return tag("p", words, class_="soft")


def visits_section(facts: ReportFacts) -> Safe | None:
    """A row for each visit or round, with gains, errors and what was forgotten."""
    made = stages(facts.job.route)
    if not made:
        return None
    shown = _notable(made)
    names = [objective.name for objective in facts.job.objectives]
    in_rounds = _in_rounds(facts)
    rows = [
        (
            str(stage.number),
            joined((tag("span", stage.where), *_aside(facts, stage))),
            f"{sum(visit.work for visit in stage.visits):,}",
            f"{max(visit.seconds for visit in stage.visits):.1f}",
            size(sum(visit.bytes_in for visit in stage.visits)),
            *(_gain(facts, stage.first, name) for name in names),
            _by_label(facts, stage.first),
        )
        for stage in shown
    ]
    to = "round of" if in_rounds else "visit to"
    columns = ("", to, "examples", "seconds", "moved", *names, "labels")
    left = len(made) - len(shown)
    note = "A gain is against the model that the stage began with, ± one standard error."
    if left:
        note += (
            f" {left:,} of {len(made):,} stages are left out: here are the first {_FIRST}, the "
            f"last {_LAST}, and the {_NOTABLE} that moved the model most."
        )
    return section(
        "visits",
        "What each round taught" if in_rounds else "What each visit taught",
        table(columns, rows, (0, 2, 3, 4)),
        tag("p", note, class_="soft"),
    )


def _notable(made: tuple[Stage, ...]) -> tuple[Stage, ...]:
    if len(made) <= _FIRST + _LAST + _NOTABLE:
        return made
    ends = {stage.number for stage in (*made[:_FIRST], *made[-_LAST:])}
    most = sorted(made[_FIRST:-_LAST], key=lambda stage: -stage.moved)[:_NOTABLE]
    ends |= {stage.number for stage in most}
    return tuple(stage for stage in made if stage.number in ends)


def _aside(facts: ReportFacts, stage: Stage) -> Iterator[Safe]:
    if len(stage.visits) > 1:
        yield tag("div", f"{len(stage.visits)} sites at once", class_="soft")
    if not _kept(facts, stage.first):
        yield tag("div", "left behind: an earlier model was better", class_="warn")


def _gain(facts: ReportFacts, visit: VisitView, name: str) -> Safe:
    value, gain = visit.values.get(name), visit.gains.get(name)
    if value is None or gain is None:
        return tag("span", "-")
    base = facts.bases.get(visit.model)
    errors = [
        facts.measured.get(model, {}).get(name)
        for model in (visit.model, base)
        if model is not None
    ]
    error = sum(fact.standard_error**2 for fact in errors if fact is not None) ** 0.5
    colour = objective_colour(facts.job, name) if gain >= 0 else LOSS_COLOUR
    alpha = round(255 * (0.05 + 0.4 * min(1.0, abs(gain) / FULL_TINT)))
    sign = "+" if gain >= 0 else "−"
    change = f"{sign}{abs(gain):.3f}" + (f" ± {error:.3f}" if error else "")
    return joined(
        (
            tag("div", f"{value:.3f}"),
            tag(
                "span",
                change,
                class_="gain" if gain >= 0 else "loss",
                style=f"background:{colour}{alpha:02x}",
            ),
        )
    )


def _by_label(facts: ReportFacts, visit: VisitView) -> Shown:
    """The label that gained most, and the one that was forgotten most."""
    changes = _label_changes(facts, visit)
    if not changes:
        return "-"
    best, worst = (pick(changes, key=changes.__getitem__) for pick in (max, min))
    lines = []
    if changes[best] > 0:
        lines.append(tag("div", f"{best} +{changes[best]:.2f}", class_="good"))
    if changes[worst] < 0:
        lines.append(tag("div", f"{worst} −{-changes[worst]:.2f}", class_="bad"))
    return joined(lines)


def _label_changes(facts: ReportFacts, visit: VisitView) -> dict[str, float]:
    base = facts.bases.get(visit.model)
    found: dict[str, float] = {}
    if base is None:
        return found
    before, after = facts.measured.get(base, {}), facts.measured.get(visit.model, {})
    for name in after.keys() & before.keys():
        for label, value in after[name].by_label.items():
            if label in before[name].by_label:
                change = value - before[name].by_label[label]
                if abs(change) > abs(found.get(label, 0.0)):
                    found[label] = change
    return found


def labels_section(facts: ReportFacts) -> Safe | None:
    """For each label: before, the best on the way, now; what was forgotten since."""
    rows = [row for one in facts.job.objectives for row in _label_rows(facts, one.name)]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[0])
    shown = [row for _, row in rows[:_MOST_LABELS]]
    columns = ("label", "target", "before", "best on the way", "now", "forgotten")
    note = "Most forgotten first. A label has few test items, so small differences mean nothing."
    if len(rows) > len(shown):
        note += f" {counted(len(rows) - len(shown), 'label')} left out."
    return section(
        "labels",
        "What it forgot, by label",
        table(columns, shown, (2, 3, 4, 5)),
        tag("p", note, class_="soft"),
    )


def _label_rows(facts: ReportFacts, name: str) -> list[tuple[float, tuple[Shown, ...]]]:
    way = [
        facts.measured[model][name] for model in facts.way if name in facts.measured.get(model, {})
    ]
    if not way:
        return []
    rows: list[tuple[float, tuple[Shown, ...]]] = []
    for label, now in sorted(way[-1].by_label.items()):
        values = [fact.by_label[label] for fact in way if label in fact.by_label]
        best, before = max(values), way[0].by_label.get(label)
        lost = best - now
        shown = tag("span", f"{lost:.2f}", class_="bad" if lost >= 0.05 else "soft")
        first = "-" if before is None else f"{before:.2f}"
        rows.append((lost, (label, name, first, f"{best:.2f}", f"{now:.2f}", shown)))
    return rows
