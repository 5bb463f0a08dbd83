"""Predicts the outcome of routes: simulates every plan under every set of parameters.

(Rollout; Bertsekas, Tsitsiklis and Wu, "Rollout algorithms for combinatorial optimization", J.
Heuristics 1997.) A plan's costs, and which of its visits are allowed, depend on the plan alone;
what it teaches differs from draw to draw. A plan ends once all targets are measured to hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from daitn.control.route.costs import NEVER_S
from daitn.control.route.task import RouteTask, Start
from daitn.control.route.value_model import (
    Draws,
    Visits,
    anchored,
    effects,
    visits_to,
    whole_values,
)
from daitn.topology.arrays import Flags, Floats, Indices

__all__ = [
    "HORIZON",
    "Expected",
    "Plan",
    "PlanOutcomes",
    "PlayedBefore",
    "Stop",
    "expected",
    "play",
    "utility",
]

HORIZON = 24
"""Number of visits that a plan looks ahead."""
_AT_ONCE = 1 << 16
"""Skills to simulate before the next check of which plans continue under which draws: few enough to
stay in the processor's cache, and enough to outweigh what each check costs."""

Stop = tuple[int, int]
"""Option and examples."""


def _keep_freed_memory() -> None:
    """Let the next arrays have the memory of earlier ones, without a return to the system.

    glibc keeps as much as twice the largest block that was freed before. Measured: 13 page faults a
    decision instead of 1,225, which took a sixth of its time.
    """
    np.empty(1 << 23, dtype=np.uint8)


_keep_freed_memory()


@dataclass(frozen=True)
class Plan:
    """Visits from a checkpoint on, and the obvious plan that they follow or vary."""

    start: int
    stops: tuple[Stop, ...]
    found_by: str = ""


@dataclass(frozen=True)
class PlanOutcomes:
    """The outcomes of P plans under N draws."""

    plans: tuple[Plan, ...]
    visits: Indices
    """(P, N): the visit (from 1) after which all targets held; 0 if they never did."""
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

    def only(self, *plans: int) -> PlanOutcomes:
        """The outcomes of these plans only."""
        arrays = {name: getattr(self, name)[list(plans)] for name in _ARRAYS}
        return PlanOutcomes(plans=tuple(self.plans[plan] for plan in plans), **arrays)

    def effort_under(self, task: RouteTask, rows: Indices) -> Floats:
        """(P,): the effort under some of the draws."""
        visits, missing = self.visits[:, rows], self.missing[:, rows]
        spent = task.effort(self.seconds[:, rows], self.cost_usd[:, rows])
        return utility(_each(task, visits, missing, spent), task.weight[rows], task.caution)

    def joined(self, others: Sequence[PlanOutcomes]) -> PlanOutcomes:
        """These outcomes, then others under the same draws."""
        found = (self, *others)
        arrays = {name: np.concatenate([getattr(one, name) for one in found]) for name in _ARRAYS}
        return PlanOutcomes(plans=tuple(plan for one in found for plan in one.plans), **arrays)


_ARRAYS = tuple(name for name in PlanOutcomes.__dataclass_fields__ if name != "plans")


@dataclass(frozen=True)
class _Trajectories:
    """What follows from P plans of up to H visits alone, visit by visit."""

    visits: Visits
    """(H * P): the first visits of all plans, then the second ones; in single precision."""
    seconds: Floats
    cost_usd: Floats
    examples: Floats
    """(P, H): spent until the end of each visit."""
    length: Indices
    """(P,): number of allowed visits."""


@dataclass(frozen=True)
class PlayedBefore:
    """Outcomes of plans under some of the draws."""

    rows: Indices
    outcomes: PlanOutcomes


def play(
    task: RouteTask,
    plans: Sequence[Plan],
    rows: Indices | None = None,
    enough: float = np.inf,
    earlier: PlayedBefore | None = None,
) -> PlanOutcomes:
    """Simulate all plans under the draws at `rows`, or under all; what is in `earlier` is not
    simulated again.

    A plan is given up once its effort is certain to exceed `enough`. Of such a plan the effort is
    only known to be more, and the rest is not known.
    """
    draws = np.arange(len(task.draws)) if rows is None else rows
    trajectories = _trajectories(task, plans)
    visits, missing = _followed(task, plans, trajectories, draws, enough, earlier)
    shape = visits.shape
    last = np.where(visits > 0, visits, trajectories.length[:, None]) - 1
    at = (np.arange(shape[0])[:, None], np.maximum(last, 0))
    nothing = last < 0
    seconds = np.where(nothing, 0.0, trajectories.seconds[at])
    cost_usd = np.where(nothing, 0.0, trajectories.cost_usd[at])
    spent = task.effort(seconds, cost_usd)
    each = _each(task, visits, missing, spent)
    return PlanOutcomes(
        plans=tuple(plans),
        visits=visits,
        seconds=seconds,
        cost_usd=cost_usd,
        examples=np.where(nothing, 0.0, trajectories.examples[at]),
        missing=missing,
        effort=utility(each, task.weight[draws], task.caution),
        chance=(visits > 0) @ task.weight[draws] / task.weight[draws].sum(),
        allowed=trajectories.length,
    )


def _each(task: RouteTask, visits: Indices, missing: Floats, spent: Floats) -> Floats:
    """(P, N): effort under each draw; `spent`: until the targets held, or until the plan's end."""
    found: Floats = np.where(visits > 0, spent, task.miss * (1.0 + missing) + 1e-3 * spent)
    return found


@dataclass(frozen=True)
class Expected:
    """Expected results after each of the first visits of one plan; means over the draws."""

    values: Floats
    """(H, O)."""
    seconds: Floats
    cost_usd: Floats
    """(H,): per visit."""


def expected(task: RouteTask, plans: Sequence[Plan], visits: Sequence[int]) -> tuple[Expected, ...]:
    """Simulate each plan for this many visits, even if targets hold earlier."""
    if not plans:
        return ()
    trajectories, usual = _trajectories(task, plans), task.weight / task.weight.sum()
    draws, most = np.arange(len(task.draws)), max(visits)
    runs = _Runs.at_start(task, plans, draws, np.ones((len(plans), len(draws)), dtype=bool))
    _, measured = runs.followed(task, trajectories, 0, most)
    found = measured.reshape(-1, most, len(plans), len(draws)).transpose(2, 1, 0, 3) @ usual
    return tuple(
        Expected(
            found[k, :count],
            np.diff(trajectories.seconds[k, :count], prepend=0.0),
            np.diff(trajectories.cost_usd[k, :count], prepend=0.0),
        )
        for k, count in enumerate(visits)
    )


def utility(each: Floats, weight: Floats, caution: float) -> Floats:
    """Weighted mean, moved by `caution` towards the mean of the worst quarter."""
    total = each @ weight / weight.sum()
    if caution <= 0.0:
        return np.asarray(total, dtype=np.float64)
    worst = np.sort(each, axis=1)[:, -max(1, each.shape[1] // 4) :].mean(axis=1)
    return np.asarray(total + caution * (worst - total), dtype=np.float64)


def _trajectories(task: RouteTask, plans: Sequence[Plan]) -> _Trajectories:
    count = np.array([len(plan.stops) for plan in plans], dtype=np.int64)
    shape = (len(plans), max(1, count.max(initial=0)))
    made = np.arange(shape[1]) < count[:, None]
    option, examples = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    flat = chain.from_iterable(chain.from_iterable(plan.stops for plan in plans))
    stops = np.fromiter(flat, np.int64, 2 * count.sum())
    option[made], examples[made] = stops[::2], stops[1::2]
    start_of = _starts_of(plans)
    costs = task.costs
    moved = np.zeros(shape)
    moved[:, 0] = costs.start_s[start_of, option[:, 0]]
    moved[:, 1:] = costs.move_s(option[:, :-1], option[:, 1:])
    seconds = np.cumsum(moved + costs.stay_s(option, examples), axis=1)
    cost_usd = np.cumsum(costs.price_usd[option] * examples, axis=1)
    spent = np.cumsum(examples, axis=1)
    limits = task.limits
    good = made & (
        (seconds <= limits.seconds)
        & (seconds < NEVER_S)
        & (cost_usd <= limits.cost_usd)
        & (spent <= limits.examples)
    )
    good &= task.open[option]
    good &= _permitted(task, start_of, option)
    return _Trajectories(
        visits=_visits(task, start_of, option.T, examples.T),
        seconds=seconds,
        cost_usd=cost_usd,
        examples=spent,
        length=np.where(good.all(axis=1), shape[1], good.argmin(axis=1)),
    )


def _visits(task: RouteTask, start_of: Indices, option: Indices, examples: Floats) -> Visits:
    """(H * P): all visits, given as (H, P), and what each model has seen before them."""
    known, models = task.known, [start.model for start in task.starts]
    rows = np.arange(len(start_of))
    seen = np.array([model.seen for model in models])[start_of]
    total = seen.sum(axis=1) + np.cumsum(examples, axis=0) - examples
    fresh = np.zeros(option.shape, dtype=bool)
    fresh[0] = np.array([model.fresh for model in models])[start_of]
    taught = known.shown.take(option, axis=-1) * examples
    before, exposure = np.empty_like(total), np.empty_like(taught)
    known_by_now = np.stack([model.exposure for model in models], axis=-1).take(start_of, axis=-1)
    for step, (at, count) in enumerate(zip(option, examples, strict=True)):
        before[step], exposure[:, :, step] = seen[rows, at], known_by_now
        seen[rows, at] += count
        known_by_now += taught[:, :, step]
    return visits_to(
        known,
        option.ravel(),
        examples.ravel(),
        before=before.ravel(),
        total=total.ravel(),
        exposure=exposure.reshape(*exposure.shape[:2], -1),
        fresh=fresh.ravel(),
        kind=np.float32,
    )


def _permitted(task: RouteTask, start_of: Indices, option: Indices) -> Flags:
    """(P, H): whether each visit, and the measurement after it, respects the release rules."""
    good = np.ones(option.shape, dtype=bool)
    if not task.restricted:
        return good
    allowed = np.array([start.allowed for start in task.starts], dtype=bool)[start_of]
    rows = np.arange(len(start_of))
    for depth in range(option.shape[1]):
        at = option[:, depth]
        travels = allowed[rows, task.jurisdiction[at]]
        allowed &= task.release[at]
        measured = np.any(allowed[:, None, :] & task.verified_in[None], axis=2).all(axis=1)
        good[:, depth] = travels & measured
    return good


@dataclass(frozen=True)
class _Runs:
    """Models of M runs, each of one plan under one draw, in single precision."""

    plan: Indices
    draw: Indices
    """(M,): their positions among all simulated ones."""
    draws: Draws
    """M, one for each run."""
    wanted: Floats
    """(O, M): targets, minus the measurement error."""
    skills: Floats
    """(D, L, M)."""
    believed: Floats
    off: Floats
    """(O, M): see `value_model.anchored`."""

    @staticmethod
    def at_start(task: RouteTask, plans: Sequence[Plan], rows: Indices, open_: Flags) -> _Runs:
        """The checkpoints from which plans continue under the draws at `rows`, where `open_`,
        (P, N)."""
        plan, draw = np.nonzero(open_)
        row = rows[draw]
        count = len(task.draws)
        at = _starts_of(plans)[plan] * count + row

        def joined(each: Sequence[Floats]) -> Floats:
            """Of the arrays (..., N) of all checkpoints, the column of each run."""
            return np.concatenate(each, axis=-1).take(at, axis=-1).astype(np.float32)

        return _Runs(
            plan=plan,
            draw=draw,
            draws=task.draws.single.take(row),
            wanted=(task.targets - task.noise).T.take(row, axis=-1).astype(np.float32),
            skills=joined([start.model.grid for start in task.starts]),
            believed=joined([start.believed.T for start in task.starts]),
            off=joined([start.off.T for start in task.starts]),
        )

    def only(self, kept: Flags) -> _Runs:
        """Those that are `kept`, (M,)."""
        if kept.all():
            return self
        at = np.flatnonzero(kept)
        return _Runs(
            plan=self.plan[at],
            draw=self.draw[at],
            draws=self.draws.take(at),
            wanted=self.wanted.take(at, axis=-1),
            skills=self.skills.take(at, axis=-1),
            believed=self.believed.take(at, axis=-1),
            off=self.off.take(at, axis=-1),
        )

    def followed(
        self, task: RouteTask, made: _Trajectories, first: int, count: int
    ) -> tuple[_Runs, Floats]:
        """After the next `count` visits of each plan, from visit `first` on, and the values after
        each without measurement error, (O, count, M)."""
        steps = np.arange(first, first + count)[:, None]
        visits = made.visits.at(steps * len(made.length) + self.plan)
        keeps, adds = effects(self.draws, visits).factors()
        skills, after = self.skills, keeps
        for each in range(count):
            np.multiply(skills, keeps[:, :, each], out=after[:, :, each])
            after[:, :, each] += adds[:, :, each]
            skills = after[:, :, each]
        whole = whole_values(task.known, self.draws, after)
        measured = anchored(whole, self.believed[:, None], self.off[:, None])
        return replace(self, skills=skills), measured


def _followed(
    task: RouteTask,
    plans: Sequence[Plan],
    trajectories: _Trajectories,
    draws: Indices,
    enough: float,
    earlier: PlayedBefore | None,
) -> tuple[Indices, Floats]:
    """The visit after which each plan reaches under each draw, and what is missing at the end.

    Plans are followed a few visits at a time. One whose effort is certain to exceed `enough` is
    given up: it reaches under no draw under which it has not reached by then.
    """
    shape, length = (len(plans), len(draws)), trajectories.length
    visits, open_ = np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=bool)
    short = np.array([_open(task, start) for start in task.starts])
    missing = np.repeat(short[_starts_of(plans), None], shape[1], axis=1)
    if earlier is not None:
        known = earlier.outcomes
        visits[:, earlier.rows], missing[:, earlier.rows] = known.visits, known.missing
        open_[:, earlier.rows] = False
    effort, weight = task.effort(trajectories.seconds, trajectories.cost_usd), task.weight[draws]
    runs, depth = _Runs.at_start(task, plans, draws, open_), 0
    while depth < length.max(initial=0):
        going = length > depth
        if enough < np.inf:
            at = np.flatnonzero(going)
            goes_on = open_[at]
            least = _least(task, effort[at], visits[at], missing[at], goes_on, weight, depth)
            going[at] = least <= enough
        runs = runs.only(going[runs.plan] & open_[runs.plan, runs.draw])
        if not len(runs.plan):
            break
        most = max(1, _AT_ONCE // runs.skills.size)
        count = min(most, int(length[runs.plan].max()) - depth)
        runs, measured = runs.followed(task, trajectories, depth, count)
        left = np.maximum(0.0, runs.wanted[:, None] - measured).sum(axis=0)
        ends = left <= 0.0
        ends |= np.arange(depth + 1, depth + count + 1)[:, None] >= length[runs.plan]
        last = ends.argmax(axis=0)
        left = left[last, np.arange(len(last))]
        missing[runs.plan, runs.draw] = left / task.short_at_start
        reached = left <= 0.0
        visits[runs.plan, runs.draw] = np.where(reached, depth + 1 + last, 0)
        open_[runs.plan, runs.draw] = ~reached
        depth += count
    return visits, missing


def _least(
    task: RouteTask,
    effort: Floats,
    visits: Indices,
    missing: Floats,
    goes_on: Flags,
    weight: Floats,
    depth: int,
) -> Floats:
    """(P,): lower bound on each plan's effort, after `depth` visits."""
    ended = task.miss * (1.0 + missing)
    ended = np.where(goes_on, np.minimum(effort[:, depth], task.miss)[:, None], ended)
    reached = np.take_along_axis(effort, np.maximum(visits - 1, 0), axis=1)
    return utility(np.where(visits > 0, reached, ended), weight, task.caution)


def _starts_of(plans: Sequence[Plan]) -> Indices:
    return np.array([plan.start for plan in plans], dtype=np.int64)


def _open(task: RouteTask, start: Start) -> float:
    measured = np.where(np.isnan(start.measured), task.known.chance, start.measured)
    return float(np.maximum(0.0, task.targets - measured).sum() / task.short_at_start)
