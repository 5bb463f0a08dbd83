"""The smallest single changes to an intent that make it feasible.

Each change is tried by assessing the changed intent; only those that flip the verdict are kept.
Bounds, budgets and targets are searched by bisection, on the assumption that loosening one never
makes an intent infeasible; each result is within the tolerance that its constant states.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from immutables import Map

from daitn.control.route.question import RouteQuestion
from daitn.objects.decisions import Rejection, Relaxation
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import TrainingIntent
from daitn.objects.quorum import Quorum
from daitn.topology.relaxation import DROPPED, as_value, relaxed

__all__ = ["Feasible", "Judge", "smallest_changes"]


@dataclass(frozen=True)
class Feasible:
    """How a changed intent would be satisfied."""

    plan: str
    """For instance `the route ghr:400`; empty means the targets hold as measured."""
    reaches: bool = False
    """Whether it is expected to reach every target, rather than only possibly."""
    taken: Mapping[str, float] = Map()
    """Its use of each limit of the budget."""


Judge = Callable[[RouteQuestion], Feasible | None]
"""Judges a question with a changed intent; none if it stays infeasible."""

_BUDGET_TOLERANCE = 0.02
"""A proposed budget exceeds the least sufficient one by at most this share."""
_TARGET_STEP = 0.01
_MOST_NAMES = 12
"""Changes tried per list (sites, jurisdictions, topics), nearest first."""
_BUDGET = ("duration_s", "cost_usd", "examples")


@dataclass(frozen=True)
class _Change:
    """A field of the intent and the JSON of its new value (see `daitn.topology.relaxation`)."""

    field: str
    value: str

    def applied(self, intent: TrainingIntent) -> TrainingIntent | None:
        """The intent with this change; none if the result is invalid."""
        try:
            return relaxed(
                intent,
                Rejection(
                    candidate="", filter="", reason="", field=self.field, relax_to=self.value
                ),
            )
        except InvalidInput:
            return None


@dataclass(frozen=True)
class _Trial:
    """Judges single changes to one question."""

    question: RouteQuestion
    judge: Judge

    def flips(self, change: _Change) -> Feasible | None:
        intent = change.applied(self.question.intent)
        if intent is None:
            return None
        return self.judge(replace(self.question, intent=intent))

    def first(self, changes: Sequence[_Change]) -> Relaxation | None:
        """The first sufficient one of increasingly loose changes; found by bisection."""
        if not changes or (plan := self.flips(changes[-1])) is None:
            return None
        low, high = 0, len(changes) - 1
        while low < high:
            middle = (low + high) // 2
            found = self.flips(changes[middle])
            if found is None:
                low = middle + 1
            else:
                high, plan = middle, found
        return self.relaxation(changes[high], plan)

    def any(self, changes: Iterable[_Change]) -> Relaxation | None:
        """The first sufficient one of independent changes."""
        for change in changes:
            plan = self.flips(change)
            if plan is not None:
                return self.relaxation(change, plan)
        return None

    def relaxation(self, change: _Change, plan: Feasible) -> Relaxation:
        stated = bool(self.question.intent.route)
        sure = "is expected to" if plan.reaches else "may"
        effect = "can be followed" if stated else f"{sure} reach every target"
        return Relaxation(
            field=change.field,
            current=_current(self.question.intent, change.field),
            proposed=change.value,
            effect=f"{plan.plan} {effect}" if plan.plan else "the targets hold as measured",
        )


def smallest_changes(
    question: RouteQuestion, rejections: tuple[Rejection, ...], judge: Judge
) -> tuple[Relaxation, ...]:
    """At most one change per field, each of which makes the question's intent feasible on its own.

    `rejections` are those of the unchanged intent: they tell which values would let more pass.
    """
    trial = _Trial(question, judge)
    found = [
        *_filters(trial, rejections),
        _quorum(trial),
        *(_budget(trial, field) for field in _BUDGET),
        *(_target(trial, index) for index in range(len(question.intent.objectives))),
    ]
    return tuple(relaxation for relaxation in found if relaxation is not None)


def _filters(trial: _Trial, rejections: tuple[Rejection, ...]) -> Iterator[Relaxation | None]:
    """Requirements, topics, verifiers and pinned sites, as the rejections propose."""
    proposed: dict[str, dict[str, Rejection]] = defaultdict(dict)
    for rejection in sorted(rejections, key=lambda r: (r.shortfall, r.candidate)):
        if rejection.relax_to and not rejection.field.startswith("budget."):
            proposed[rejection.field].setdefault(rejection.relax_to, rejection)
    for field in sorted(proposed):
        changes = [_Change(field, value) for value in proposed[field]]
        bound = field.endswith((".at_least", ".at_most"))
        yield trial.first(changes) if bound else trial.any(changes[:_MOST_NAMES])
    dropped = {_Change(field, DROPPED) for field in proposed if field.endswith("]")}
    for index in range(len(trial.question.intent.requirements)):
        change = _Change(f"requirements[{index}]", DROPPED)
        proposed_already = any(field.startswith(change.field) for field in proposed)
        if proposed_already and change not in dropped:
            yield trial.any([change])


def _quorum(trial: _Trial) -> Relaxation | None:
    """As many as there are owners of verifiers that can measure each objective, if the intent asks
    for more."""
    wanted, topology = trial.question.intent.quorum, trial.question.topology
    names = trial.question.intent.objective_names()
    able = min(len(topology.verifier_owners(name)) for name in names)
    if not 0 < able < wanted.quorum:
        return None
    fewer = Quorum(quorum=able, of=min(wanted.of, 2 * able - 1))
    return trial.any([_Change("verification", as_value(fewer))])


def _budget(trial: _Trial, field: str) -> Relaxation | None:
    """The least sufficient limit, up to what a route takes without this limit."""
    limit = getattr(trial.question.intent.budget, field)
    if limit is None:
        return None
    unlimited = trial.flips(_Change(f"budget.{field}", DROPPED))
    if unlimited is None or not unlimited.plan:
        return None
    most = getattr(trial.question.spent, field) + unlimited.taken[field]
    ladder = [max(float(limit), most / 1e3)]
    while ladder[-1] < most:
        ladder.append(ladder[-1] * (1.0 + _BUDGET_TOLERANCE))
    values = dict.fromkeys(_rounded(value, field) for value in ladder[1:])
    return trial.first([_Change(f"budget.{field}", as_value(value)) for value in values])


def _rounded(value: float, field: str) -> float:
    """Round up to a whole second or example, or a whole cent."""
    return math.ceil(value * 100) / 100 if field == "cost_usd" else math.ceil(value)


def _target(trial: _Trial, index: int) -> Relaxation | None:
    """The highest reachable target below the stated one, to `_TARGET_STEP`."""
    stated = trial.question.intent.objectives[index].at_least
    steps = math.ceil(stated / _TARGET_STEP) - 1
    field = f"objectives[{index}].at_least"
    lower = [_Change(field, as_value(round(k * _TARGET_STEP, 2))) for k in range(steps, 0, -1)]
    return trial.first(lower)


def _current(intent: TrainingIntent, field: str) -> str:
    """The JSON of the value at a path in the intent."""
    value = msgspec.to_builtins(intent)
    for step in field.replace("[", ".").replace("]", "").split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return as_value(value)
