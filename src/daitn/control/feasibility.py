"""T-FAM, the training feasibility assessment module (paper, section III).

An intent is feasible if MTRCE finds a route with any chance of reaching every target within budget,
requirements and the data owners' rules: before anything is measured, a prediction that rejects a
job must be certain. The assessment reports the chance, from the same beliefs that later steer the
job. Otherwise it reports every reason, and the smallest single changes to the intent that would
make it feasible (`daitn.control.relaxations`).

A route pinned by the owner is judged as it stands, and is not feasible if not even a hopeful view
of it reaches, with or without what earlier jobs taught.
Weights supplied by the owner, whose knowledge is unknown, are only checked for obstacles. An owner
may insist on a job that is not feasible: the assessment says whether it could make a visit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

from daitn.control.relaxations import Feasible, Judge, smallest_changes
from daitn.control.route.engine import Mtrce
from daitn.control.route.question import RouteQuestion
from daitn.control.route.task import most_taught, task
from daitn.objects.decisions import Assessment, Decision, Rejection, Route
from daitn.objects.intents import TrainingIntent
from daitn.objects.text import counted
from daitn.topology.snapshot import MsDrrt

__all__ = ["assess"]

_OF_ROUTES = ("duration", "cost", "examples", "release")
_SURE = 0.8
"""Below this chance the owner gets a caution."""
_RELAXED_LOOKS = 0
"""Relaxed intents are judged by the obvious plans alone, because many are tried."""
_HARDLY = 0.01
"""A smaller chance is told as being below this."""
_SHOWN = 3
"""Candidates named in a sentence."""


def assess(question: RouteQuestion, cut: Callable[[TrainingIntent], MsDrrt]) -> Assessment:
    """Decide whether the question's intent is feasible, and if not, what would have to change.

    `cut` gives the topology for a changed intent, on the same snapshot as `question.topology`.
    Raises `InvalidInput` if a preference names an unknown scorer.
    """
    route, decision = Mtrce().plan(question)
    feasible = _feasible(question, route)
    rejections = (*question.topology.rejections, *decision.rejections)
    reasons = _cautions(route) if feasible else _reasons(question, route, decision)
    return Assessment(
        feasible=feasible,
        reasons=tuple(reasons),
        rejections=rejections,
        relaxations=() if feasible else smallest_changes(question, rejections, _verdict(cut)),
        route=route,
        could_begin=feasible or _could_begin(question, route),
        snapshot_version=question.snapshot_version,
    )


def _could_begin(question: RouteQuestion, route: Route | None) -> bool:
    """Whether a job that is not feasible would make a visit if its owner insisted."""
    if route is None and question.intent.route:
        route, _ = Mtrce(looks=_RELAXED_LOOKS).plan(replace(question, insisted=True))
    return route is not None


def _verdict(
    cut: Callable[[TrainingIntent], MsDrrt],
) -> Judge:
    """Judge changed questions, each on a topology cut anew for it."""

    def judge(question: RouteQuestion) -> Feasible | None:
        changed = replace(question, topology=cut(question.intent))
        route, decision = Mtrce(looks=_RELAXED_LOOKS).plan(changed)
        return Feasible(route, decision) if _feasible(changed, route) else None

    return judge


def _feasible(question: RouteQuestion, route: Route | None) -> bool:
    if _unmeasured(question):
        return False
    if question.holds:
        return True
    if route is None or question.intent.model.start:
        return route is not None
    if route.chance > 0.0 or not question.intent.route:
        return route.chance > 0.0
    # Earlier jobs may have taught too much too surely: a job that is refused teaches nothing more.
    doubted, _ = Mtrce().plan(replace(question, experience=question.begun))
    return doubted is not None and doubted.chance > 0.0


def _cautions(route: Route | None) -> Iterator[str]:
    """Caution about a feasible intent whose targets are uncertain."""
    if route is not None and route.chance < _SURE:
        yield (
            f"the targets are within reach with a chance {_chance(route)}: "
            f"{_values(route)} expected after {counted(len(route.visits), 'visit')}; "
            "the first measurements will tell"
        )


def _chance(route: Route) -> str:
    return f"of about {route.chance:.0%}" if route.chance >= _HARDLY else f"below {_HARDLY:.0%}"


def _values(route: Route) -> str:
    expected = route.visits[-1].expected
    return ", ".join(f"{name} {value:.2f}" for name, value in sorted(expected.items()))


def _unmeasured(question: RouteQuestion) -> list[str]:
    """Objectives that no verifier can measure."""
    names = question.intent.objective_names()
    return [name for name in names if not question.topology.verifiers.get(name)]


def _reasons(question: RouteQuestion, route: Route | None, decision: Decision) -> Iterator[str]:
    unmeasured = _unmeasured(question)
    for name in unmeasured:
        topic = question.intent.objective(name).topic
        yield f"no verifier can measure objective {name} (test set on {topic})"
    if question.intent.route:
        yield from _pinned_reasons(question, route, decision)
    elif not question.topology.options:
        yield from _no_data(question)
    elif not unmeasured:
        yield from _short_of_target(question, route, decision)


def _pinned_reasons(
    question: RouteQuestion, route: Route | None, decision: Decision
) -> Iterator[str]:
    for rejection in question.topology.rejections:
        if rejection.filter == "pinned":
            yield rejection.reason
    for rejection in decision.rejections:
        yield f"the stated route {rejection.candidate} {rejection.reason}"
    if route is not None:
        yield (
            f"the stated route reaches the targets with a chance {_chance(route)}: "
            f"{_values(route)} expected at its end"
        )


def _no_data(question: RouteQuestion) -> Iterator[str]:
    """Which filter excludes every data set, or which ones together do."""
    failed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rejection in question.topology.rejections:
        if "/" in rejection.candidate:
            item = _item(rejection.field)
            failed[rejection.filter, item].add(rejection.candidate)
    everyone = set().union(*failed.values()) if failed else set()
    if not everyone:
        yield "no site offers a data set"
        return
    whole = [key for key, candidates in failed.items() if candidates == everyone]
    alone = len(everyone) == 1
    fails = (
        "the only data set does not pass"
        if alone
        else f"none of the {len(everyone)} data sets passes"
    )
    for name, item in whole:
        example = next(
            r for r in question.topology.rejections if (r.filter, _item(r.field)) == (name, item)
        )
        yield f"{fails} {item or name}: {example.candidate}: {example.reason}"
    if not whole:
        counts = ", ".join(f"{name} ({len(found)})" for (name, _), found in sorted(failed.items()))
        yield f"each of the {len(everyone)} data sets fails some filter: {counts}"


def _item(field: str) -> str:
    """The list item that a field belongs to (`requirements[0]`), or the field itself."""
    head, bracket, _ = field.partition("]")
    return head + bracket


def _short_of_target(
    question: RouteQuestion, route: Route | None, decision: Decision
) -> Iterator[str]:
    unreachable = list(_ceilings(question))
    yield from unreachable
    beyond = [r for r in decision.rejections if r.filter in _OF_ROUTES]
    if unreachable:
        return
    for rejection in _one_each(beyond):
        yield f"the best route, {rejection.candidate}, {rejection.reason}"
    if not beyond:
        best = _values(route) if route else "none"
        yield f"no route is expected to reach all targets together; the best: {best}"


def _ceilings(question: RouteQuestion) -> Iterator[str]:
    """Targets beyond what all allowed data can teach, with any number of examples."""
    topology = question.topology
    most = most_taught(task(question, Mtrce().weights))
    for objective, value in zip(question.intent.objectives, most, strict=True):
        if value < objective.at_least:
            sites = [option.site for option in topology.options]
            shown = ", ".join(sites[:_SHOWN]) + (", ..." if len(sites) > _SHOWN else "")
            yield (
                f"objective {objective.name}: at most {value:.2f} is expected from all data "
                f"({shown}), the target is {objective.at_least:g}"
            )


def _one_each(rejections: list[Rejection]) -> list[Rejection]:
    """For each filter, the rejection with the smallest shortfall."""
    nearest: dict[str, Rejection] = {}
    for rejection in sorted(rejections, key=lambda r: (r.shortfall, r.candidate)):
        nearest.setdefault(rejection.filter, rejection)
    return [nearest[name] for name in sorted(nearest)]
