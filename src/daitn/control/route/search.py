"""The best plan that can be found in so many looks: the obvious ways first, then local changes.

The search starts from the best of the obvious ways and follows the best change of its first visits
(another amount, another site, a visit more or less, two exchanged, the rest by another way) until
none helps: iterated improvement under the same draws for all. A change must promise more than
`_EVIDENCE`, for a plan that differs from what somebody would do anyway needs a reason. More looks
only ever find a better plan. Looks are counted and not timed, so that a decision can be replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np

from daitn.control.route.obvious import GREEDY, MEASURED, amounts, epochs, obvious_plans, promising
from daitn.control.route.rollout import HORIZON, Plan, PlanOutcomes, Stop, play
from daitn.control.route.task import Task
from daitn.control.route.value_model import Indices

__all__ = ["LOOKS", "best_plans"]

LOOKS = 400
"""Plans that a decision looks at, the obvious ways included, which are always looked at."""
_CHANGED = 6
"""Visits of a plan that may be changed; what comes later is planned again before it is carried
out."""
_OTHERS = 10
"""Options that are tried in the place of another."""
_FEW = 12
_BATCH, _CLOSER = 80, 10
"""So many changes are compared at a time, whole batches only, so that more looks go the same way
further. Those that look best under `_FEW` draws are played out under all."""
_EVIDENCE = 0.02
_STALLED = 3
"""Visits in a row without measured progress after which what is believed has no say."""
_LONG_TURN = 0.75
"""Epochs."""
_LEAST_ROUND, _ROUND = 4, 6
"""Visits for which one plain way is then followed: once through the sites, where they are few or
many so many at least or at most."""


def best_plans(task: Task, looks: int = LOOKS) -> PlanOutcomes:
    """All obvious ways and the improved plans, played out under all draws."""
    obvious = tuple(obvious_plans(task))
    found = play(task, obvious)
    if not obvious or task.stalled >= _STALLED:
        return _plainly(task, found)
    left = looks - len(obvious)
    best, least = obvious[int(found.order()[0])], float(found.effort.min())
    kept: list[Plan] = list(obvious)
    rivals = [obvious[int(k)] for k in found.order()[:4]]
    tried: set[Plan] = set(obvious)
    while left > 0:
        changes = [plan for plan in _changes(task, best, rivals) if plan not in tried]
        better, effort = best, least
        for batch in (changes[at : at + _BATCH] for at in range(0, len(changes), _BATCH)):
            left -= len(batch)
            if left < 0:
                break
            closer = _promising_of(task, batch)
            outcome = play(task, closer)
            at = int(outcome.order()[0])
            if outcome.effort[at] < effort:
                better, effort = closer[at], float(outcome.effort[at])
        tried.update(changes)
        if not (changes and effort < (1.0 - _EVIDENCE) * least):
            break
        best, least = better, effort
        kept.append(best)
    return play(task, kept)


def _plainly(task: Task, found: PlanOutcomes) -> PlanOutcomes:
    """Only one of the plain ways: what was expected did not come, again and again, so that beliefs
    have no say but which way is tried first: the one that goes by measured gains, then the others,
    each for a round, with long and short turns in turn. Where visits undid what was known, short
    turns come first, and what was gained last."""
    plain = [int(k) for k in found.order() if found.plans[k].way != GREEDY and found.allowed[k]]
    if not plain:
        return found
    turns = {k: _turn(task, found.plans[k]) for k in plain}
    measured = [k for k in plain if found.plans[k].way.startswith(MEASURED)]
    others = [k for k in plain if k not in measured]
    first = [k for k in others if (turns[k] >= _LONG_TURN) != task.undone]
    then = [k for k in others if k not in first]
    mixed = [k for pair in zip_longest(first, then) for k in pair if k is not None]
    plain = mixed + measured if task.undone else measured + mixed
    turn = (task.stalled - _STALLED) // max(_LEAST_ROUND, min(_ROUND, int(task.open.sum())))
    return play(task, (found.plans[plain[turn % len(plain)]],))


def _turn(task: Task, plan: Plan) -> float:
    """Epochs of its visits; the median."""
    records = task.known.records
    return float(np.median([examples / records[option] for option, examples in plan.stops]))


def _promising_of(task: Task, plans: list[Plan]) -> list[Plan]:
    count = len(task.draws)
    few = np.r_[0:_FEW, count - 1]
    order = play(task, plans, few).order()
    return [plans[int(k)] for k in order[:_CLOSER]]


def _changes(task: Task, plan: Plan, rivals: list[Plan]) -> Iterator[Plan]:
    stops = plan.stops
    depth = min(_CHANGED, len(stops))
    others = _others(task, plan)
    for i in range(depth):
        option, examples = stops[i]
        head, tail = stops[:i], stops[i + 1 :]
        for amount in _near(amounts(task, option), examples):
            yield _changed(plan, (*head, (option, amount), *tail))
        yield _changed(plan, (*head, *tail))
        for other in others:
            if other != option:
                yield _changed(plan, (*head, (other, epochs(task, other, 1.0)), *tail))
            if i < 3:
                yield _changed(plan, (*head, (other, epochs(task, other, 1.0)), *stops[i:]))
        if tail:
            yield _changed(plan, (*head, tail[0], stops[i], *tail[1:]))
    for rival in rivals:
        for i in range(1, min(4, depth)):
            if rival.start == plan.start:
                yield _changed(plan, (*stops[:i], *rival.stops))


def _changed(plan: Plan, stops: tuple[Stop, ...]) -> Plan:
    return Plan(plan.start, stops[:HORIZON], f"{plan.way}, changed".replace(", changed,", ","))


def _near(grid: tuple[int, ...], examples: int) -> Iterator[int]:
    at = int(np.argmin([abs(np.log(amount / examples)) for amount in grid]))
    for k in (at - 2, at - 1, at, at + 1, at + 2):
        if 0 <= k < len(grid) and grid[k] != examples:
            yield grid[k]


def _others(task: Task, plan: Plan) -> Indices:
    options = np.flatnonzero(task.open)
    if len(options) <= _OTHERS:
        return options
    return promising(task, plan.start, options, _OTHERS)
