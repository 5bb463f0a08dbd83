"""How a route would end: plays every plan out under every set of parameters.

(Rollout; Bertsekas, Tsitsiklis and Wu, "Rollout algorithms for combinatorial optimization", J.
Heuristics 1997.) A plan's costs, and which of its visits are allowed, depend on the plan alone;
what it teaches differs from draw to draw. A plan ends once all targets are measured to hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daitn.control.route.costs import NEVER_S
from daitn.control.route.task import RouteTask, Start
from daitn.control.route.value_model import (
    Flags,
    Floats,
    Indices,
    Visits,
    after_visit,
    anchored,
    whole_values,
)

__all__ = ["HORIZON", "Expected", "Plan", "PlanOutcomes", "Stop", "expected", "play", "utility"]

HORIZON = 24
"""Number of visits that a plan looks ahead."""

Stop = tuple[int, int]
"""Option and examples."""


@dataclass(frozen=True)
class Plan:
    """Visits from a checkpoint on, and the obvious plan that they follow or depart from."""

    start: int
    stops: tuple[Stop, ...]
    way: str = ""


@dataclass(frozen=True)
class PlanOutcomes:
    """How P plans ended under N draws."""

    plans: tuple[Plan, ...]
    visits: Indices
    """(P, N): after which visit (from 1) all targets held; 0 if they never did."""
    seconds: Floats
    cost_usd: Floats
    examples: Floats
    """(P, N): spent until then, or until the plan's end."""
    missing: Floats
    """(P, N): share of the initial shortfall left at the end; 0 if reached."""
    effort: Floats
    """(P,): least is best; mean over the draws, with tails weighted by the owner's preferences."""
    chance: Floats
    """(P,): weighted share of the draws that reach all targets."""
    allowed: Indices
    """(P,): how many visits of each plan are within budget and rules."""

    def order(self) -> Indices:
        """Indices of the plans, best first."""
        return np.argsort(self.effort, kind="stable")

    def only(self, plan: int) -> PlanOutcomes:
        """One plan's outcome."""
        arrays = {name: getattr(self, name)[[plan]] for name in _ARRAYS}
        return PlanOutcomes(plans=(self.plans[plan],), **arrays)

    def joined(self, others: Sequence[PlanOutcomes]) -> PlanOutcomes:
        """These outcomes, then others under the same draws."""
        found = (self, *others)
        arrays = {name: np.concatenate([getattr(one, name) for one in found]) for name in _ARRAYS}
        return PlanOutcomes(plans=tuple(plan for one in found for plan in one.plans), **arrays)


_ARRAYS = tuple(name for name in PlanOutcomes.__dataclass_fields__ if name != "plans")


@dataclass(frozen=True)
class _Way:
    """What follows from P plans alone, visit by visit; arrays (P, H)."""

    option: Indices
    examples: Floats
    before: Floats
    """Examples of earlier visits to the same option."""
    total: Floats
    """Examples of all earlier visits, including those that made the checkpoint."""
    exposure: Floats
    """(P, H, D, L): examples of each label in each field, before the visit."""
    seconds: Floats
    cost_usd: Floats
    told: Floats
    """Examples so far."""
    length: Indices
    """(P,): number of allowed visits."""


def play(
    task: RouteTask,
    plans: Sequence[Plan],
    rows: Indices | None = None,
    enough: float = np.inf,
) -> PlanOutcomes:
    """Play all plans out under the draws at `rows`, or under all.

    A plan is given up once its effort is certain to exceed `enough`. Of such a plan the effort is
    only known to be more, and the rest is not known.
    """
    draws = np.arange(len(task.draws)) if rows is None else rows
    way = _way(task, plans)
    visits, missing = _followed(task, plans, way, draws, enough)
    shape = visits.shape
    last = np.where(visits > 0, visits, way.length[:, None]) - 1
    at = (np.arange(shape[0])[:, None], np.maximum(last, 0))
    nothing = last < 0
    seconds = np.where(nothing, 0.0, way.seconds[at])
    cost_usd = np.where(nothing, 0.0, way.cost_usd[at])
    spent = task.effort(seconds, cost_usd)
    each = np.where(visits > 0, spent, task.miss * (1.0 + missing) + 1e-3 * spent)
    return PlanOutcomes(
        plans=tuple(plans),
        visits=visits,
        seconds=seconds,
        cost_usd=cost_usd,
        examples=np.where(nothing, 0.0, way.told[at]),
        missing=missing,
        effort=utility(each, task.weight[draws], task.caution),
        chance=(visits > 0) @ task.weight[draws] / task.weight[draws].sum(),
        allowed=way.length,
    )


@dataclass(frozen=True)
class Expected:
    """Expected results after each of the first visits of one plan; means over the draws."""

    values: Floats
    """(H, O)."""
    seconds: Floats
    cost_usd: Floats
    """(H,): per visit."""


def expected(task: RouteTask, plan: Plan, visits: int) -> Expected:
    """Follow one plan for so many visits, even if targets hold earlier."""
    way = _way(task, (plan,))
    known, start = task.known, task.starts[plan.start]
    model, found = start.model, np.zeros((visits, len(task.targets)))
    usual = task.weight / task.weight.sum()
    for depth, (site, examples) in enumerate(plan.stops[:visits]):
        model = model.after(known, task.draws, site, float(examples))
        whole = whole_values(known, task.draws, model.skills)
        found[depth] = usual @ anchored(whole, start.believed, start.off)
    return Expected(
        found,
        np.diff(way.seconds[0, :visits], prepend=0.0),
        np.diff(way.cost_usd[0, :visits], prepend=0.0),
    )


def utility(each: Floats, weight: Floats, caution: float) -> Floats:
    """Weighted mean, moved by `caution` towards the mean of the worst quarter."""
    total = each @ weight / weight.sum()
    if caution <= 0.0:
        return np.asarray(total, dtype=np.float64)
    worst = np.sort(each, axis=1)[:, -max(1, each.shape[1] // 4) :].mean(axis=1)
    return np.asarray(total + caution * (worst - total), dtype=np.float64)


def _way(task: RouteTask, plans: Sequence[Plan]) -> _Way:
    longest = max((len(plan.stops) for plan in plans), default=0)
    shape = (len(plans), max(1, longest))
    option, examples = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    count = np.array([len(plan.stops) for plan in plans], dtype=np.int64)
    for k, plan in enumerate(plans):
        if plan.stops:
            where, amount = zip(*plan.stops, strict=True)
            option[k, : len(where)], examples[k, : len(where)] = where, amount
    costs = task.costs
    moved = np.zeros(shape)
    moved[:, 0] = costs.start_s[[plan.start for plan in plans], option[:, 0]]
    moved[:, 1:] = costs.move_s(option[:, :-1], option[:, 1:])
    seconds = np.cumsum(moved + costs.stay_s(option, examples), axis=1)
    cost_usd = np.cumsum(costs.price_usd[option] * examples, axis=1)
    told = np.cumsum(examples, axis=1)
    seen = np.array([task.starts[plan.start].model.seen.sum() for plan in plans])
    limits = task.limits
    good = np.arange(shape[1])[None] < count[:, None]
    good &= (
        (seconds <= limits.seconds)
        & (seconds < NEVER_S)
        & (cost_usd <= limits.cost_usd)
        & (told <= limits.examples)
    )
    good &= task.open[option]
    good &= _permitted(task, plans, option)
    length = np.where(good.all(axis=1), shape[1], good.argmin(axis=1))
    return _Way(
        option=option,
        examples=examples,
        before=_before(task, plans, option, examples),
        total=told - examples + seen[:, None],
        exposure=_exposure(task, plans, option, examples),
        seconds=seconds,
        cost_usd=cost_usd,
        told=told,
        length=length,
    )


def _permitted(task: RouteTask, plans: Sequence[Plan], option: Indices) -> Flags:
    """(P, H): whether each visit, and the measurement after it, respects the release rules."""
    good = np.ones(option.shape, dtype=bool)
    if not task.restricted:
        return good
    allowed = np.array([task.starts[plan.start].allowed for plan in plans], dtype=bool)
    rows = np.arange(len(plans))
    for depth in range(option.shape[1]):
        at = option[:, depth]
        travels = allowed[rows, task.jurisdiction[at]]
        allowed &= task.release[at]
        measured = np.any(allowed[:, None, :] & task.verified_in[None], axis=2).all(axis=1)
        good[:, depth] = travels & measured
    return good


def _before(task: RouteTask, plans: Sequence[Plan], option: Indices, examples: Floats) -> Floats:
    """(P, H): examples of earlier visits to the same option."""
    before = np.stack([task.starts[plan.start].model.seen for plan in plans])
    before = np.take_along_axis(before, option, axis=1)
    earlier = np.tri(option.shape[1], k=-1, dtype=bool)
    same = (option[:, :, None] == option[:, None, :]) & earlier
    found: Floats = before + np.einsum("phk,pk->ph", same, examples)
    return found


def _exposure(task: RouteTask, plans: Sequence[Plan], option: Indices, examples: Floats) -> Floats:
    known = task.known
    start = np.stack([task.starts[plan.start].model.exposure for plan in plans])
    in_field = known.field[option][:, :, None] == np.arange(len(known.fields))
    each = in_field[..., None] * (known.share[option] * examples[..., None])[:, :, None, :]
    before: Floats = np.cumsum(each, axis=1) - each + start[:, None]
    return before


def _followed(
    task: RouteTask, plans: Sequence[Plan], way: _Way, draws: Indices, enough: float
) -> tuple[Indices, Floats]:
    """After which visit each plan reaches under each draw, and what is missing at the end.

    A plan whose effort is certain to exceed `enough` is given up: it reaches under no draw under
    which it has not reached by then.
    """
    known, count = task.known, len(draws)
    plan = np.repeat(np.arange(len(plans)), count)
    drawn = np.tile(draws, len(plans))
    start_of = np.array([one.start for one in plans], dtype=np.int64)[plan]
    skills = np.stack([start.model.skills for start in task.starts])[start_of, drawn]
    believed = np.stack([start.believed for start in task.starts])[start_of, drawn]
    off = np.stack([start.off for start in task.starts])[start_of, drawn]
    fresh = np.array([task.starts[one.start].model.fresh for one in plans], dtype=bool)
    visits = np.zeros((len(plans), count), dtype=np.int64)
    open_ = np.array([_open(task, start) for start in task.starts])
    missing = open_[start_of].reshape(visits.shape)
    column = np.tile(np.arange(count), len(plans))
    noise = task.noise[drawn]
    effort = task.effort(way.seconds, way.cost_usd)
    for depth in range(way.option.shape[1]):
        going = (way.length > depth)[plan]
        if enough < np.inf:
            least = _least(task, way, effort, visits, missing, draws, depth)
            going &= (least <= enough)[plan]
        if not going.all():
            plan, drawn, column, skills, believed, off, noise = _only(
                going, plan, drawn, column, skills, believed, off, noise
            )
        if not len(plan):
            break
        made = Visits(
            site=way.option[:, depth],
            examples=way.examples[:, depth],
            before=way.before[:, depth],
            total=way.total[:, depth],
            exposure=way.exposure[:, depth],
            fresh=fresh & (depth == 0),
            made=plan,
        )
        skills = after_visit(known, task.draws, skills, made, drawn)
        whole = whole_values(known, task.draws, skills, drawn)
        short = np.maximum(0.0, task.targets - anchored(whole, believed, off) - noise)
        left = short.sum(axis=1)
        missing[plan, column] = left / task.short_at_start
        done = left <= 0.0
        if done.any():
            visits[plan[done], column[done]] = depth + 1
            plan, drawn, column, skills, believed, off, noise = _only(
                ~done, plan, drawn, column, skills, believed, off, noise
            )
    return visits, missing


def _least(
    task: RouteTask,
    way: _Way,
    effort: Floats,
    visits: Indices,
    missing: Floats,
    draws: Indices,
    depth: int,
) -> Floats:
    """(P,): less than this no plan's effort can become, after `depth` visits."""
    goes_on = np.minimum(effort[:, depth], task.miss)[:, None]
    ended = np.where((way.length > depth)[:, None], goes_on, task.miss * (1.0 + missing))
    reached = np.take_along_axis(effort, np.maximum(visits - 1, 0), axis=1)
    each = np.where(visits > 0, reached, ended)
    return utility(each, task.weight[draws], task.caution)


def _only(rows: Flags, *arrays: Any) -> tuple[Any, ...]:
    """These rows; each array keeps its order in memory."""
    at = np.flatnonzero(rows)
    return tuple(array.T.take(at, axis=-1).T for array in arrays)


def _open(task: RouteTask, start: Start) -> float:
    measured = np.where(np.isnan(start.measured), task.known.chance, start.measured)
    return float(np.maximum(0.0, task.targets - measured).sum() / task.short_at_start)
