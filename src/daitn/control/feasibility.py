"""T-FAM, the training feasibility assessment module (paper, section III).

An intent is feasible if MTRCE finds a route, or rounds if it asks for them, with any chance of
reaching every target within budget, requirements and the data owners' rules: before anything is
measured, a prediction that rejects a job must be certain. The assessment reports the chance, from
the same beliefs that later steer the job. Otherwise it reports every reason, and the smallest
single changes to the intent that would make it feasible (`daitn.control.relaxations`).

A route pinned by the owner is judged as it stands, and is not feasible if not even a hopeful view
of it reaches, with or without what earlier jobs taught.
Weights supplied by the owner, whose knowledge is unknown, are only checked for obstacles. An owner
may insist on a job that is not feasible: the assessment says whether it could make a visit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from daitn.control.relaxations import Feasible, Judge, smallest_changes
from daitn.control.route.engine import Mtrce, Planning
from daitn.control.route.question import RouteQuestion
from daitn.control.route.rounds import next_round
from daitn.control.route.selection import ExpectedRounds, expected_rounds
from daitn.control.route.task import most_taught, route_task
from daitn.objects.decisions import Assessment, Decision, Rejection, Route, nearest
from daitn.objects.identifiers import ObjectiveName
from daitn.objects.intents import TrainingIntent
from daitn.objects.merging import Algorithm
from daitn.objects.text import counted
from daitn.topology.snapshot import MsDrrt

__all__ = ["assess"]

_OF_ROUTES = ("duration", "cost", "examples", "release")
_SURE = 0.8
"""Below this chance the owner gets a caution."""
_RELAXED_LOOKS = 0
"""Relaxed intents are judged by the obvious plans alone, because many are tried."""
_LIKELY = 0.5
"""Chance from which rounds are expected to reach the targets."""
_HARDLY = 0.01
"""Smaller chances are reported as below this."""
_SHOWN = 3
"""Candidates named in a sentence."""


def assess(question: RouteQuestion, cut: Callable[[TrainingIntent], MsDrrt]) -> Assessment:
    """Decide whether the question's intent is feasible, and if not, what would have to change.

    `cut` gives the topology for a changed intent, on the same snapshot as `question.topology`.
    Raises `InvalidInput` if a preference names an unknown scorer.
    """
    judged = _judged(question, Mtrce())
    feasible = judged.feasible
    rejections = (*question.topology.rejections, *judged.decision.rejections)
    reasons = _cautions(judged) if feasible else _reasons(judged)
    expected, shown = judged.rounds, nearest(rejections)
    return Assessment(
        feasible=feasible,
        reasons=tuple(reasons),
        rejections=shown,
        relaxations=() if feasible else smallest_changes(question, rejections, _verdict(cut)),
        route=None if expected else judged.route,
        round=expected.found.round if expected else None,
        could_begin=feasible or bool(expected) or _could_begin(question, judged.route),
        snapshot_version=question.snapshot_version,
        rejections_more=len(rejections) - len(shown),
    )


@dataclass(frozen=True)
class _Judged:
    """A question, and the route or rounds that answer it."""

    question: RouteQuestion
    planning: Planning
    rounds: ExpectedRounds | None
    """Instead of the route, if the intent asks for rounds, or if only they may reach the
    targets."""

    @property
    def route(self) -> Route | None:
        return self.planning.route

    @property
    def decision(self) -> Decision:
        return self.planning.decision

    @property
    def in_rounds(self) -> bool:
        """Whether the intent asks for rounds."""
        return self.question.intent.training.rule is not None

    @property
    def feasible(self) -> bool:
        if _unmeasured(self.question) or _untrainable(self.question):
            return False
        if self.question.holds:
            return True
        if self.rounds is not None or self.in_rounds:
            brought = bool(self.question.intent.model.start)
            return self.rounds is not None and (brought or self.rounds.chance > 0.0)
        return _feasible(self.question, self.route)


def _judged(question: RouteQuestion, engine: Mtrce) -> _Judged:
    """Judged by rounds if the intent asks for them, else by a route; by rounds too if no route
    reaches the targets and the network may choose."""
    planning = engine.planned(question)
    named = question.intent.training.rule is not None
    if not named and _feasible(question, planning.route):
        return _Judged(question, planning, None)
    found = expected_rounds(question, planning)
    return _Judged(question, planning, found if named or (found and found.chance > 0.0) else None)


def _could_begin(question: RouteQuestion, route: Route | None) -> bool:
    """Whether an infeasible job would make a visit if its owner insisted."""
    if route is None and question.intent.route:
        route, _ = Mtrce(looks=_RELAXED_LOOKS).plan(replace(question, insisted=True))
    return route is not None


def _verdict(
    cut: Callable[[TrainingIntent], MsDrrt],
) -> Judge:
    """Judge changed questions, each on a newly cut topology."""

    def judge(question: RouteQuestion) -> Feasible | None:
        changed = replace(question, topology=cut(question.intent))
        judged = _judged(changed, Mtrce(looks=_RELAXED_LOOKS))
        return _how(judged) if judged.feasible else None

    return judge


def _how(judged: _Judged) -> Feasible:
    route, rounds = judged.route, judged.rounds
    if rounds is not None and rounds.found.round is not None:
        planned, count = rounds.found.round, max(1, rounds.rounds)
        taken = {
            "duration_s": rounds.seconds,
            "cost_usd": count * sum(visit.expected_cost_usd for visit in planned.visits),
            "examples": float(count * sum(visit.examples for visit in planned.visits)),
        }
        return Feasible(_rounds_of(rounds), rounds.chance >= _LIKELY, taken)
    if route is None:
        return Feasible("")
    taken = {
        "duration_s": sum(visit.expected_s for visit in route.visits),
        "cost_usd": sum(visit.expected_cost_usd for visit in route.visits),
        "examples": float(sum(visit.examples for visit in route.visits)),
    }
    return Feasible(f"the route {judged.decision.chosen}", route.reaches, taken)


def _rounds_of(rounds: ExpectedRounds) -> str:
    planned = rounds.found.round
    assert planned is not None
    return f"rounds of {planned.algorithm} ({rounds.found.decision.chosen})"


def _feasible(question: RouteQuestion, route: Route | None) -> bool:
    if _unmeasured(question):
        return False
    if question.holds:
        return True
    if route is None or question.intent.model.start:
        return route is not None
    if route.chance > 0.0 or not question.intent.route:
        return route.chance > 0.0
    # Earlier jobs may have taught too much too confidently: a job that is refused teaches nothing
    # more.
    doubted, _ = Mtrce().plan(replace(question, experience=question.begun))
    return doubted is not None and doubted.chance > 0.0


def _cautions(judged: _Judged) -> Iterator[str]:
    """Caution about a feasible intent whose targets are uncertain."""
    route, rounds = judged.route, judged.rounds
    if rounds is not None:
        if rounds.chance < _SURE:
            yield (
                f"{_rounds_of(rounds)} reach the targets with a chance {_chance(rounds.chance)}, "
                f"about {counted(rounds.rounds, 'round')} in {rounds.seconds:.0f} s; "
                "the first measurements will tell"
            )
    elif route is not None and route.chance < _SURE:
        yield (
            f"the targets are within reach with a chance {_chance(route.chance)}: "
            f"{_values(route)} expected after {counted(len(route.visits), 'visit')}; "
            "the first measurements will tell"
        )


def _chance(chance: float) -> str:
    return f"of about {chance:.0%}" if chance >= _HARDLY else f"below {_HARDLY:.0%}"


def _values(route: Route) -> str:
    expected = route.visits[-1].expected
    return ", ".join(f"{name} {value:.2f}" for name, value in sorted(expected.items()))


def _unmeasured(question: RouteQuestion) -> list[ObjectiveName]:
    """Objectives that no verifier can measure, or those of fewer owners than must agree."""
    least, topology = question.intent.quorum.quorum, question.topology
    names = question.intent.objective_names()
    return [name for name in names if len(topology.verifier_owners(name)) < least]


def _why_unmeasured(question: RouteQuestion, name: ObjectiveName) -> str:
    topic, least = question.intent.objective(name).topic, question.intent.quorum.quorum
    able = question.topology.verifier_sites(name)
    owners = question.topology.verifier_owners(name)
    few = "no verifier" if least == 1 else f"fewer than {least} verifiers (verification.quorum)"
    only = f": {', '.join(able)} alone" if able else ""
    if len(able) >= least:  # Of which several are one owner's.
        few = f"verifiers of fewer than {least} owners (verification.quorum)"
        only = (
            f": {', '.join(able)}, all of {'the owner' if len(owners) == 1 else 'the owners'} "
            f"{', '.join(owners)}, each of whom has one voice; another owner's verifier, or a "
            "lower quorum, would help"
        )
    return f"{few} can measure objective {name} (test set on {topic}){only}"


def _untrainable(question: RouteQuestion) -> Algorithm | None:
    """Rejects an algorithm in the intent that its recipe does not support."""
    training = question.intent.training
    wanted = [training.algorithm, *([Algorithm.FEDPROX] if training.mu is not None else [])]
    return next((one for one in wanted if one in question.unfit), None)


def _reasons(judged: _Judged) -> Iterator[str]:
    question, route, decision = judged.question, judged.route, judged.decision
    unmeasured = _unmeasured(question)
    for name in unmeasured:
        yield _why_unmeasured(question, name)
    if untrainable := _untrainable(question):
        fits = (one for one in Algorithm if one not in question.unfit)
        yield (
            f"the recipe {question.intent.model.recipe} does not train by {untrainable}; it does "
            f"by {', '.join(fits)}"
        )
        return
    if question.intent.route:
        yield from _pinned_reasons(question, route, decision)
    elif not question.topology.options:
        yield from _no_data(question)
    elif judged.in_rounds and not unmeasured:
        yield from _short_of_target_in_rounds(judged)
    elif not unmeasured:
        yield from _short_of_target(question, route, decision)


def _short_of_target_in_rounds(judged: _Judged) -> Iterator[str]:
    question, training = judged.question, judged.question.intent.training
    assert training.rule is not None
    if not question.merges:
        recipe = question.intent.model.recipe
        yield f"the recipe {recipe} does not merge models, as {training.algorithm} has to"
        return
    unreachable = list(_ceilings(question))
    yield from unreachable
    found = next_round(question, training.algorithm, training.rule)
    if found.round is None:
        yield found.why or found.waits
    elif not unreachable:
        yield f"no rounds of {training.algorithm} are expected to reach all targets together"


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
            f"the stated route reaches the targets with a chance {_chance(route.chance)}: "
            f"{_values(route)} expected at its end"
        )


def _no_data(question: RouteQuestion) -> Iterator[str]:
    """The filter that excludes every data set, or those that do so together."""
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
    """The list item to which a field belongs (`requirements[0]`), or the field itself."""
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
    most = most_taught(route_task(question, Mtrce().weights))
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
