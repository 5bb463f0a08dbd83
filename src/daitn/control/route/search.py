"""The best sequences of visits: beam search with a bound, then local improvement.

A partial route has a lower bound on its effort: the effort so far, plus for the objective that
needs most the shortfall divided by the best gain per effort that any visit offers from the state
before. Without fading, coverage is submodular, so rates only fall and the bound is sound; with
fading it is a good estimate. Routes whose bound exceeds the best complete route are dropped.

Half of the beam follows the least estimated effort, the other half the least shortfall: the
first alone prefers many small visits, whose estimates are the most hopeful, and can miss targets
near the ceiling. Everything is decided by values and positions: the same problem gives the same
routes. `benchmarks/route.py` measures the gap to the best route.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from daitn.control.route.knowledge import Floats, Indices
from daitn.control.route.problem import Flags, Problem, States

__all__ = ["Plan", "Step", "Walked", "best_plans", "walk"]

_BEAM = 32
_PER_OPTION = 3
"""Amounts of work at one option that are followed from one state."""
_DEPTH = 8
_KEPT = 8
_IMPROVED = 3
_ROUNDS = 8
_NEAR_EFFORT = 1.5
"""Routes of up to this many times the least effort are proposed beside the best."""
_NEAR_CLOSED = 0.95
"""Where no route reaches: those that close at least this share of what the best one closes."""
_UNREACHED = 1e6
"""Effort of a plan that does not reach, before its shortfall is counted."""
_CLOSING = 10.0
"""What all of the shortfall weighs beside effort where a plan does not reach: closing one hundredth
of it is worth a tenth of the budget."""

Step = tuple[int, float]
"""Option and examples."""


@dataclass(frozen=True)
class Plan:
    """A start and the visits from there on."""

    start: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Walked:
    """What is expected of plans: cut where all aims hold, `valid` while every visit is allowed."""

    plans: tuple[Plan, ...]
    states: States
    valid: Flags
    rank: Floats
    """Least is best: the effort, or more than `_UNREACHED` for plans that fall short."""
    trace: tuple[tuple[States, Indices], ...]
    """After each step: the states of the plans (their rows beside them) that took it."""


@dataclass(frozen=True)
class _Children:
    """Visits from states of the beam, by row: where from, where to, how much, before and after."""

    parents: Indices
    option: Indices
    examples: Floats
    before: States
    after: States

    def plan(self, plans: Sequence[Plan], row: int) -> Plan:
        """The parent's plan with this visit appended."""
        parent = plans[self.parents[row]]
        return Plan(
            parent.start, (*parent.steps, (int(self.option[row]), float(self.examples[row])))
        )


def best_plans(problem: Problem) -> tuple[Plan, ...]:
    """Up to `_KEPT` plans, best first: all reach, or none does and they close the most."""
    complete, partial = _beam(problem)
    found = _ranked(problem, complete or partial)
    improved = [_improved(problem, plan) for plan in found.plans[:_IMPROVED]]
    ranked = _ranked(problem, (*improved, *found.plans))
    return _near(problem, ranked)


def walk(problem: Problem, plans: Sequence[Plan]) -> Walked:
    """Follow every plan step by step."""
    states = problem.starts.take(np.array([plan.start for plan in plans], dtype=np.int64))
    valid = np.ones(len(plans), dtype=bool)
    lengths = np.zeros(len(plans), dtype=np.int64)
    trace: list[tuple[States, Indices]] = []
    going: Flags = np.any(problem.shortfall(states.expected) > 0.0, axis=1)
    for depth in range(max((len(plan.steps) for plan in plans), default=0)):
        rows = np.array(
            [
                k
                for k, plan in enumerate(plans)
                if going[k] and valid[k] and len(plan.steps) > depth
            ],
            dtype=np.int64,
        )
        if not len(rows):
            break
        option = np.array([plans[k].steps[depth][0] for k in rows], dtype=np.int64)
        examples = np.array([plans[k].steps[depth][1] for k in rows])
        before = states.take(rows)
        after = problem.visit(before, option, examples)
        useful = _gains(problem, before, after) & (before.at != option)
        valid[rows] = problem.visitable(before, option) & problem.within(after) & useful
        states = _replaced(states, rows, after)
        lengths[rows] = depth + 1
        going[rows] = np.any(problem.shortfall(after.expected) > 0.0, axis=1)
        trace.append((after, rows))
    cut = tuple(Plan(p.start, p.steps[:n]) for p, n in zip(plans, lengths, strict=True))
    return Walked(cut, states, valid, _rank(problem, states), tuple(trace))


def _rank(problem: Problem, states: States) -> Floats:
    missing = problem.shortfall(states.expected).sum(axis=1)
    effort = problem.effort(states.seconds, states.cost_usd)
    open_before = problem.shortfall(problem.starts.expected).sum(axis=1).max()
    left = _CLOSING * missing / max(float(open_before), 1e-9)
    return np.where(missing > 0.0, _UNREACHED + left, 0.0) + effort


def _gains(problem: Problem, before: States, after: States) -> Flags:
    """Whether a visit is expected to improve an objective that does not hold yet."""
    wanted = problem.shortfall(before.expected) > 0.0
    more = after.expected - before.expected > problem.least_gain
    gains: Flags = np.any(wanted & more, axis=1)
    return gains


def _replaced(states: States, rows: Indices, by: States) -> States:
    fields = {name: getattr(states, name).copy() for name in states.__dataclass_fields__}
    for name, values in fields.items():
        values[rows] = getattr(by, name)
    return States(**fields)


def _beam(problem: Problem) -> tuple[tuple[Plan, ...], tuple[Plan, ...]]:
    """Plans that reach all aims, and the best of those that do not."""
    states = problem.starts
    plans = [Plan(start, ()) for start in range(len(states.start))]
    complete: list[Plan] = []
    partial: list[Plan] = []
    least = np.inf
    for _ in range(_DEPTH):
        made = _children(problem, states)
        if not len(made.parents):
            break
        rank = _rank(problem, made.after)
        reached = rank < _UNREACHED
        least = min(least, float(rank[reached].min(initial=np.inf)))
        order = np.argsort(rank, kind="stable")
        count = int(reached.sum())
        complete += [made.plan(plans, k) for k in order[: min(count, _KEPT)]]
        partial += [made.plan(plans, k) for k in order[count : count + _KEPT]]
        bound, estimate = _bounds(problem, made)
        chosen = _followed(np.flatnonzero(~reached & (bound < least)), (estimate, rank), made)
        states, plans = made.after.take(chosen), [made.plan(plans, k) for k in chosen]
    return tuple(complete), tuple(partial)


def _children(problem: Problem, states: States) -> _Children:
    """Every visit that is allowed, within the budget, and expected to help.

    No option twice running: absorbing composes, so one longer visit does the same.
    """
    count, options, grid = len(states.start), len(problem.open), np.array(problem.grid)
    parents = np.repeat(np.arange(count), options)
    option = np.tile(np.arange(options), count)
    allowed = problem.visitable(states.take(parents), option) & (states.at[parents] != option)
    parents = np.repeat(parents[allowed], len(grid))
    option = np.repeat(option[allowed], len(grid))
    examples = np.tile(grid, len(parents) // len(grid))
    before = states.take(parents)
    after = problem.visit(before, option, examples)
    kept = problem.within(after) & _gains(problem, before, after)
    return _Children(
        parents[kept], option[kept], examples[kept], before.take(kept), after.take(kept)
    )


def _bounds(problem: Problem, made: _Children) -> tuple[Floats, Floats]:
    """Effort so far and at least to come, and the same with a less hopeful rest.

    The bound takes it that one visit serves all objectives, the estimate adds that every
    objective needs its own. `_UNREACHED` and the shortfall where no visit helps an objective.
    """
    stay = problem.effort(
        problem.stay_s(made.option, made.examples),
        problem.costs.price_usd[made.option] * made.examples,
    )
    rates = (made.after.expected - made.before.expected) / np.maximum(stay, 1e-12)[:, None]
    best = np.zeros((int(made.parents.max(initial=-1)) + 1, rates.shape[1]))
    np.maximum.at(best, made.parents, rates)
    missing = problem.shortfall(made.after.expected)
    rate = best[made.parents]
    each = np.where(missing > 0.0, missing / np.maximum(rate, 1e-12), 0.0)
    hopeless = np.any((missing > 0.0) & (rate <= 0.0), axis=1)
    bound = problem.effort(made.after.seconds, made.after.cost_usd) + each.max(axis=1)
    rank = _rank(problem, made.after)
    return np.where(hopeless, rank, bound), np.where(hopeless, rank, bound + each.sum(axis=1))


def _followed(follow: Indices, orders: Sequence[Floats], made: _Children) -> Indices:
    """An equal share of the beam by each order, at most `_PER_OPTION` of one parent and option."""
    chosen: set[int] = set()
    for order in orders:
        taken: Counter[tuple[int, int]] = Counter()
        for row in follow[np.argsort(order[follow], kind="stable")]:
            group = (int(made.parents[row]), int(made.option[row]))
            if taken[group] < _PER_OPTION:
                taken[group] += 1
                chosen.add(int(row))
            if taken.total() == _BEAM // len(orders):
                break
    return np.array(sorted(chosen), dtype=np.int64)


def _ranked(problem: Problem, plans: Sequence[Plan]) -> Walked:
    """Valid plans without repetition, best first."""
    walked = walk(problem, tuple(dict.fromkeys(plans)))
    order = [int(k) for k in np.argsort(walked.rank, kind="stable") if walked.valid[k]]
    unique = dict.fromkeys(walked.plans[k] for k in order if walked.plans[k].steps)
    return walk(problem, tuple(unique))


def _near(problem: Problem, ranked: Walked) -> tuple[Plan, ...]:
    """Those of the ranked plans that are nearly as good as the best."""
    if not ranked.plans:
        return ()
    if ranked.rank[0] < _UNREACHED:
        near = ranked.rank <= _NEAR_EFFORT * ranked.rank[0]
    else:
        open_before = problem.shortfall(problem.starts.expected).sum(axis=1).max()
        closed = open_before - problem.shortfall(ranked.states.expected).sum(axis=1)
        near = closed >= _NEAR_CLOSED * closed.max()
    return tuple(plan for plan, good in zip(ranked.plans, near, strict=True) if good)[:_KEPT]


def _improved(problem: Problem, plan: Plan) -> Plan:
    """Follow the best change of the plan until none helps."""
    rank = float(walk(problem, (plan,)).rank[0])
    for _ in range(_ROUNDS):
        walked = walk(problem, tuple(dict.fromkeys(_neighbours(problem, plan))))
        ranks = np.where(walked.valid, walked.rank, np.inf)
        if not len(ranks) or ranks.min() >= rank:
            break
        rank, plan = float(ranks.min()), walked.plans[int(ranks.argmin())]
    return plan


def _neighbours(problem: Problem, plan: Plan) -> Iterator[Plan]:
    """More or less work at a visit, another site, a visit less, two visits exchanged."""
    steps, amounts = plan.steps, problem.fine_grid
    insertable = np.flatnonzero(problem.open) if len(steps) < _DEPTH else ()
    for i, (option, examples) in enumerate(steps):
        head, tail = steps[:i], steps[i + 1 :]
        at = amounts.index(examples)
        for other in (at - 2, at - 1, at + 1, at + 2):
            if 0 <= other < len(amounts):
                yield Plan(plan.start, (*head, (option, amounts[other]), *tail))
        for elsewhere in np.flatnonzero(problem.open):
            if elsewhere != option:
                yield Plan(plan.start, (*head, (int(elsewhere), examples), *tail))
        if len(steps) > 1:
            yield Plan(plan.start, (*head, *tail))
        for before in insertable:
            yield Plan(plan.start, (*head, (int(before), amounts[len(amounts) // 3]), *steps[i:]))
        if tail:
            yield Plan(plan.start, (*head, tail[0], (option, examples), *tail[1:]))
