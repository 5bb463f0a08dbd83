"""How values are displayed on a screen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daitn.oam.words import (
    REJECTED_COLUMNS,
    expected_words,
    rejected_rows,
    setback_lines,
    size,
    values,
)
from daitn.objects.decisions import (
    Assessment,
    Compared,
    Decision,
    Round,
    Route,
    SiteBelief,
)
from daitn.objects.jobs import Decided, JobState, JobView
from daitn.objects.placement import DeploymentView, PlacementView, PlaceView
from daitn.objects.text import counted
from daitn.tools import clock
from daitn.topology.snapshot import SiteState

if TYPE_CHECKING:  # It would import numpy for every command.
    from daitn.topology.qrrt.served import ServedModel

__all__ = [
    "age",
    "algorithm_words",
    "assessment_table",
    "decided_table",
    "decision_table",
    "decisions_table",
    "deployment_table",
    "job_table",
    "placement_table",
    "places_words",
    "plain_table",
    "route_table",
    "route_words",
    "standing",
    "state_words",
]

_MOST_RUNS = 6
"""Stages of a route in a cell: it must not widen with the job."""
_COLOURS = {
    JobState.REACHED: "green",
    JobState.EXHAUSTED: "yellow",
    JobState.INFEASIBLE: "red",
    JobState.FAILED: "red",
    JobState.CANCELLED: "yellow",
}


def age(at_s: float) -> str:
    """Time elapsed, for people."""
    age_s = max(0.0, clock.wall_s() - at_s)
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit} ago"
    return f"{age_s:.0f} s ago"


def state_words(site: SiteState) -> str:
    """State of a site: alive or lost, and whether an operator took it out of service."""
    state = "alive" if site.alive else "lost"
    cordon = site.descriptor.cordon
    return f"{state}, {cordon.word}" if cordon else state


def plain_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table of plain text."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Names come from the network: they are text, never markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def job_table(job: JobView) -> RenderableType:
    """A job: its state, its objectives, the route so far and the planned one."""
    colour = _COLOURS.get(job.state, "cyan")
    head = Text.assemble(
        (job.job, "bold"),
        "  ",
        (job.state.value, f"bold {colour}"),
        f"  {job.detail or job.sentence}",
    )
    parts: list[RenderableType] = [head, _objectives(job)]
    parts += [Text(f"not counted: {one}", style="yellow") for one in job.disagreements]
    parts += [Text(f"set back: {one}", style="yellow") for one in setback_lines(job)]
    if job.route:
        parts.append(_route(job))
    if job.planned is not None and not job.state.final:
        stops = " > ".join(f"{v.site}:{v.examples}" for v in job.planned.visits)
        parts.append(Text(f"planned  {stops}", style="dim"))
    parts.append(
        Text(
            f"{job.algorithm}, {counted(job.examples, 'example')}, {size(job.bytes_moved)} moved, "
            f"{job.cost_usd:.2f} USD, {job.seconds:.1f} s"
        )
    )
    return Group(*parts)


def _objectives(job: JobView) -> Table:
    table = plain_table(
        "", ("objective", "metric", "untrained", "reached", "target", "verifier"), ()
    )
    for objective in job.objectives:
        untrained = job.untrained.get(objective.name)
        reached = "-" if objective.reached is None else f"{objective.reached:.3f}"
        table.add_row(
            Text(objective.name),
            Text(objective.metric),
            "-" if untrained is None else f"{untrained:.3f}",
            Text(reached, style="green" if objective.holds else "yellow"),
            f"{objective.target:.3f}",
            objective.verifier or "-",
        )
    return table


def _route(job: JobView) -> Table:
    names = [objective.name for objective in job.objectives]
    columns = ["", "site", "work", "train s", "move s", "verify s", "bytes", *names]
    in_rounds = any(visit.round for visit in job.route)
    in_private = any(visit.privacy for visit in job.route)
    columns += [*(["epsilon"] if in_private else []), *(["round"] if in_rounds else [])]
    table = plain_table("", columns, ())
    for number, visit in enumerate(job.route, 1):
        gains = [f"{visit.values[n]:.3f} ({visit.gains[n]:+.3f})" for n in names]
        table.add_row(
            str(number),
            visit.site,
            str(visit.work),
            f"{visit.seconds:.1f}",
            f"{visit.transfer_s:.2f}",
            f"{visit.verify_s:.1f}",
            size(visit.bytes_in),
            *gains,
            *([f"{visit.privacy.epsilon:.3g}" if visit.privacy else "-"] if in_private else []),
            *([str(visit.round or "-")] if in_rounds else []),
        )
    return table


def route_words(job: JobView) -> str:
    """The sites of a job's route, separated by `>`; those of a round together, like visits to a
    site in a row. A long route is cut in the middle."""
    stages = list[str]()
    for number, visits in itertools.groupby(job.route, key=lambda visit: visit.round):
        sites = [visit.site for visit in visits]
        stages += [f"{len(sites)} at once"] if number else sites
    runs = [(name, len(list(same))) for name, same in itertools.groupby(stages)]
    words = [name if count == 1 else f"{name} x{count}" for name, count in runs]
    if len(runs) > _MOST_RUNS + 1:  # Of one more, its name is as short as "1 more".
        ends = _MOST_RUNS // 2
        cut = sum(count for _, count in runs[ends:-ends])
        words[ends:-ends] = [f"{cut} more"]
    return " > ".join(words)


def assessment_table(assessment: Assessment) -> RenderableType:
    """T-FAM's assessment."""
    verdict = (
        Text("feasible", "bold green") if assessment.feasible else Text("not feasible", "bold red")
    )
    parts: list[RenderableType] = [verdict]
    parts.extend(Text(f"- {reason}") for reason in assessment.reasons)
    if not assessment.feasible and assessment.could_begin:
        parts.append(Text("`daitn train --insist` starts it all the same", "dim"))
    if assessment.route is not None:
        parts.append(route_table("expected route", assessment.route))
    if assessment.round is not None:
        parts.append(
            _round_table(f"expected in each round, {assessment.round.algorithm}", assessment.round)
        )
    if assessment.relaxations:
        rows_ = [(r.field, r.current, r.proposed, r.effect) for r in assessment.relaxations]
        title = "any one of these would make it feasible"
        parts.append(plain_table(title, ("field", "now", "change to", "effect"), rows_))
    if assessment.rejections:
        rows = rejected_rows(assessment.rejections)
        parts.append(plain_table("left out", REJECTED_COLUMNS, rows))
    if assessment.rejections_more:
        parts.append(Text(f"and {assessment.rejections_more:,} more that are farther off", "dim"))
    return Group(*parts)


def decisions_table(decisions: Iterable[Decided]) -> RenderableType:
    """Every decision on a job's route, one per line."""
    rows = [
        (
            made.number,
            age(made.at_s),
            made.visits_before,
            made.decision.chosen or (f"waits: {made.waiting_for}" if made.waiting_for else "none"),
            values(made.route.visits[-1].expected) if made.route else made.why,
        )
        for made in decisions
    ]
    columns = ("decision", "made", "visits before", "chosen", "expected at its end")
    return plain_table("decisions", columns, rows)


def decided_table(made: Decided, of: int) -> RenderableType:
    """One decision: the chosen route, stop by stop, and everything it was chosen from."""
    head = Text(f"decision {made.number} of {of}, {age(made.at_s)}", "bold")
    parts: list[RenderableType] = [head]
    if made.route is not None:
        parts.append(route_table("chosen route", made.route))
    if made.round is not None:
        parts.append(_round_table(f"at the same time, {made.round.algorithm}", made.round))
    if made.waiting_for:
        parts.append(Text(f"no route now: it waits for {made.waiting_for}"))
    if made.why:
        parts.append(Text(made.why))
    if made.decision.algorithms:
        parts.append(Text(algorithm_words(made.decision.algorithms)))
    parts.extend(_comparison(made.decision))
    parts.extend(Text(f"- {sentence}") for sentence in made.decision.experience)
    if made.decision.beliefs:
        parts.append(_beliefs(made.decision.beliefs))
    return Group(*parts, decision_table(made.decision))


def _round_table(title: str, planned: Round) -> Table:
    """The sites that train at the same time, and their amounts."""
    rows = [
        (visit.site, visit.examples, f"{visit.expected_s:.1f}", f"{visit.expected_cost_usd:.2f}")
        for visit in planned.visits
    ]
    return plain_table(title, ("site", "work", "seconds", "USD"), rows)


def algorithm_words(algorithms: Sequence[Compared]) -> str:
    """The chosen algorithm, and what was expected of it and the others."""
    words = [f"{one.plan} {expected_words(one.expected_s, one.chance)}" for one in algorithms]
    return f"algorithm {algorithms[0].plan}: expected {'; '.join(words)}"


def _comparison(decision: Decision) -> Iterator[RenderableType]:
    """The chosen route's seconds beside those of the obvious plans."""
    chosen = next((s for s in decision.ranking if s.candidate == decision.chosen), None)
    if chosen is None or chosen.expected_s is None or not decision.compared:
        return
    others = [
        f"{one.plan}: {expected_words(one.expected_s, one.chance)}" for one in decision.compared
    ]
    mine = expected_words(chosen.expected_s, chosen.terms.get("reach", 0.0))
    yield Text(f"expected: {mine}; the obvious routes: {', '.join(others)}")


def _beliefs(beliefs: Iterable[SiteBelief]) -> Table:
    rows = [
        (
            one.candidate,
            one.visits,
            one.examples,
            f"{one.expected_s:.1f}",
            ", ".join(
                f"{name} {gain:+.2f} ± {one.gain_sd.get(name, 0.0):.2f}"
                for name, gain in one.gain.items()
            ),
        )
        for one in beliefs
    ]
    columns = ("data set", "visits", "examples", "seconds", "expected gain ± how sure")
    return plain_table("what one epoch at each site is believed to teach now", columns, rows)


def route_table(title: str, route: Route) -> RenderableType:
    """A route, stop by stop."""
    rows = [
        (
            n,
            v.site,
            v.examples,
            f"{v.expected_s:.1f}",
            f"{v.expected_cost_usd:.2f}",
            values(v.expected),
        )
        for n, v in enumerate(route.visits, 1)
    ]
    return plain_table(title, ("", "site", "work", "seconds", "USD", "expected after it"), rows)


def decision_table(decision: Decision) -> RenderableType:
    """A ranking with every term, and every rejection."""
    terms = sorted({term for scored in decision.ranking for term in scored.terms})
    expects = any(scored.expected for scored in decision.ranking)
    timed = any(scored.expected_s is not None for scored in decision.ranking)
    rows = [
        (
            "*" if s.candidate == decision.chosen else "",
            s.candidate,
            f"{s.score:.3f}",
            *([f"{s.expected_s or 0.0:.1f}"] if timed else []),
            *(f"{s.terms.get(term, 0.0):.3f}" for term in terms),
            *([values(s.expected)] if expects else []),
        )
        for s in decision.ranking
    ]
    parts: list[RenderableType] = [
        plain_table(
            f"{decision.policy}: ranking",
            (
                "",
                "candidate",
                "score",
                *(["seconds"] if timed else []),
                *terms,
                *(["expected"] if expects else []),
            ),
            rows,
        )
    ]
    if decision.rejections:
        parts.append(
            plain_table(
                "rejected",
                ("candidate", "filter", "reason"),
                ((r.candidate, r.filter, r.reason) for r in decision.rejections),
            )
        )
    return Group(*parts)


def standing(one: PlaceView | ServedModel) -> str:
    """State of a deployment at a site in one word."""
    return one.standing or one.state or "-"  # Earlier releases do not tell its standing.


def places_words(view: DeploymentView) -> str:
    """Where a deployment is, and why it does not answer there, in a line."""
    return ", ".join(
        f"{place.site} {standing(place)}{f' ({place.detail})' if place.detail else ''}"
        for place in view.places
    )


def deployment_table(view: DeploymentView) -> RenderableType:
    """A deployment and its places."""
    rows = [
        (
            place.site,
            standing(place),
            "" if place.wanted else "to be retired",
            place.detail,
        )
        for place in view.places
    ]
    head = Text.assemble((view.name, "bold"), f"  model {view.model}  placed {view.why}")
    return Group(head, plain_table("", ("facility", "state", "", ""), rows))


def placement_table(view: PlacementView) -> RenderableType:
    """Changes that the optimiser would make."""
    if not view.changes:
        return Text("nothing to change")
    rows = [("+" if c.add else "-", c.name, c.site, f"{c.gain:.3g}", c.why) for c in view.changes]
    return plain_table("", ("", "model", "facility", "gain", "why"), rows)
