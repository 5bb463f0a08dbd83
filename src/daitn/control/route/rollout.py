"""Predicts the outcome of routes: simulates every plan under every set of parameters.

(Rollout; Bertsekas, Tsitsiklis and Wu, "Rollout algorithms for combinatorial optimization", J.
Heuristics 1997.) A plan's costs, and which of its visits are allowed, depend on the plan alone;
what it teaches differs from draw to draw. A plan ends once all targets are measured to hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from daitn.control.route.costs import NEVER_S
from daitn.control.route.task import RouteTask, Start
from daitn.control.route.value_model import (
    Draws,
    Visits,
    anchored,
    effects,
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
_AT_ONCE = (2, 3, 4, 6, 9)
"""Number of visits to simulate before the next check of which plans continue: each check costs as
much as simulating a hundred rows, and most plans are given up early. They add up to `HORIZON`."""
_FEWER = 0.75
"""Draws under which all plans have reached the targets are left out once few enough others
remain."""

Stop = tuple[int, int]
"""Option and examples."""


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
    """What follows from P plans alone, visit by visit; arrays (P, H)."""

    option: Indices
    examples: Floats
    before: Floats
    """Examples of earlier visits to the same option."""
    total: Floats
    """Examples of all earlier visits, including those that made the checkpoint."""
    seconds: Floats
    cost_usd: Floats
    examples_so_far: Floats
    """Examples so far."""
    length: Indices
    """(P,): number of allowed visits."""
    fresh: Flags
    """(P,): whether the checkpoint was never trained."""


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
        examples=np.where(nothing, 0.0, trajectories.examples_so_far[at]),
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
    state = _State.at_start(task, _starts_of(plans), np.arange(len(task.draws)))
    _, measured = state.followed(task, trajectories, 0, max(visits))
    found = measured @ usual
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
    examples_so_far = np.cumsum(examples, axis=1)
    seen = np.array([task.starts[plan.start].model.seen.sum() for plan in plans])
    limits = task.limits
    good = np.arange(shape[1])[None] < count[:, None]
    good &= (
        (seconds <= limits.seconds)
        & (seconds < NEVER_S)
        & (cost_usd <= limits.cost_usd)
        & (examples_so_far <= limits.examples)
    )
    good &= task.open[option]
    good &= _permitted(task, plans, option)
    length = np.where(good.all(axis=1), shape[1], good.argmin(axis=1))
    return _Trajectories(
        option=option,
        examples=examples,
        before=_before(task, plans, option, examples),
        total=examples_so_far - examples + seen[:, None],
        seconds=seconds,
        cost_usd=cost_usd,
        examples_so_far=examples_so_far,
        length=length,
        fresh=np.array([task.starts[plan.start].model.fresh for plan in plans], dtype=bool),
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


@dataclass(frozen=True)
class _State:
    """Models of some plans under some draws, P plans and N draws of all simulated ones, in single
    precision."""

    plan: Indices
    draw: Indices
    """(P,), (N,): their positions among all simulated ones."""
    draws: Draws
    wanted: Floats
    """(O, N): targets, minus the measurement error."""
    skills: Floats
    """(P, D, L, N); (1, ...) if all are alike, like the next three."""
    exposure: Floats
    """(P, D, L)."""
    believed: Floats
    off: Floats
    """(P, O, N): see `value_model.anchored`."""

    @staticmethod
    def at_start(task: RouteTask, start_of: Indices, rows: Indices) -> _State:
        """The checkpoints from which plans continue, under the draws at `rows`."""
        used = np.unique(start_of)
        at = np.searchsorted(used, start_of) if len(used) > 1 else np.zeros(1, dtype=np.int64)
        starts = [task.starts[start] for start in used]

        def stacked(each: Sequence[Floats]) -> Floats:
            found: Floats = np.stack(each)[at].astype(np.float32)
            return found

        return _State(
            plan=np.arange(len(start_of)),
            draw=np.arange(len(rows)),
            draws=task.draws.single.take(rows),
            wanted=(task.targets - task.noise[rows]).T.astype(np.float32),
            skills=stacked([start.model.grid[0][..., rows] for start in starts]),
            exposure=np.stack([start.model.exposure for start in starts])[at],
            believed=stacked([start.believed[rows].T for start in starts]),
            off=stacked([start.off[rows].T for start in starts]),
        )

    def only(self, going: Flags, draws: Indices) -> _State:
        """The plans that are `going`, (P,), under the draws at these positions, (N',)."""
        state = self
        if not going.all():
            at = np.flatnonzero(going)
            alike = len(self.plan) > 1

            def kept(each: Floats) -> Floats:
                return each if alike and len(each) == 1 else each[at]

            state = replace(
                self,
                plan=self.plan[at],
                skills=kept(self.skills),
                exposure=kept(self.exposure),
                believed=kept(self.believed),
                off=kept(self.off),
            )
        if len(draws) == len(self.draw):
            return state
        return replace(
            state,
            draw=state.draw[draws],
            draws=state.draws.take(draws),
            wanted=state.wanted[:, draws],
            skills=state.skills[..., draws],
            believed=state.believed[..., draws],
            off=state.off[..., draws],
        )

    def followed(
        self, task: RouteTask, made: _Trajectories, first: int, count: int
    ) -> tuple[_State, Floats]:
        """After the next `count` visits of each plan, from visit `first` on, and the values after
        each without measurement error, (P, count, O, N)."""
        known, (plans, draws) = task.known, (len(self.plan), len(self.draw))
        at = (self.plan[:, None], np.arange(first, first + count))
        site, examples = made.option[at], made.examples[at]
        taught = np.zeros((plans, count, *self.exposure.shape[1:]))
        row, step = np.arange(plans)[:, None], np.arange(count)
        taught[row, step, known.field[site]] = known.share[site] * examples[..., None]
        seen = self.exposure[:, None] + np.cumsum(taught, axis=1)
        fresh = np.zeros(site.shape, dtype=bool)
        fresh[:, 0] = made.fresh[self.plan] & (first == 0)
        visits = Visits(
            site=site.ravel(),
            examples=examples.ravel(),
            before=made.before[at].ravel(),
            total=made.total[at].ravel(),
            exposure=(seen - taught).reshape(-1, *seen.shape[2:]),
            fresh=fresh.ravel(),
        )
        keeps, adds = effects(known, self.draws, visits).factors()
        keeps = keeps.reshape(plans, count, *keeps.shape[1:])
        adds = adds.reshape(plans, count, *adds.shape[1:])
        skills, field = self.skills, known.field[site]
        after = np.empty_like(keeps)
        for each in range(count):
            np.multiply(skills, keeps[:, each], out=after[:, each])
            after[row[:, 0], each, field[:, each]] += adds[:, each]
            skills = after[:, each]
        whole = whole_values(known, self.draws, after.reshape(-1, *after.shape[2:]))
        whole = whole.reshape(plans, count, -1, draws)
        measured = anchored(whole, self.believed[:, None], self.off[:, None])
        return replace(self, skills=skills, exposure=seen[:, -1]), measured


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
    start_of, shape = _starts_of(plans), (len(plans), len(draws))
    visits, open_ = np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=bool)
    missing = np.repeat([[_open(task, start)] for start in task.starts], shape[1], axis=1)[start_of]
    if earlier is not None:
        known = earlier.outcomes
        visits[:, earlier.rows], missing[:, earlier.rows] = known.visits, known.missing
        open_[:, earlier.rows] = False
    state = _State.at_start(task, start_of, draws)
    effort, weight = task.effort(trajectories.seconds, trajectories.cost_usd), task.weight[draws]
    longest, depth = int(trajectories.length.max(initial=0)), 0
    for wanted in _AT_ONCE:
        count, at = min(wanted, longest - depth), state.plan
        if count <= 0:
            break
        going = (trajectories.length[at] > depth) & open_[at].any(axis=1)
        if enough < np.inf:
            goes_on = open_[at] & going[:, None]
            least = _least(task, effort[at], visits[at], missing[at], goes_on, weight, depth)
            going &= least <= enough
        if not going.any():
            break
        state = state.only(going, _worth_following(open_[np.ix_(at[going], state.draw)]))
        state, measured = state.followed(task, trajectories, depth, count)
        left = np.maximum(0.0, state.wanted - measured).sum(axis=2)
        made = np.minimum(trajectories.length[state.plan] - depth, count)
        ends = left <= 0.0
        ends |= (np.arange(1, count + 1) >= made[:, None])[..., None]
        last = ends.argmax(axis=1)
        left = np.take_along_axis(left, last[:, None], axis=1)[:, 0]
        block = np.ix_(state.plan, state.draw)
        still = open_[block]
        missing[block] = np.where(still, left / task.short_at_start, missing[block])
        done = still & (left <= 0.0)
        visits[block] = np.where(done, depth + 1 + last, visits[block])
        open_[block] = still & ~done
        depth += count
    return visits, missing


def _worth_following(open_: Flags) -> Indices:
    """Positions of the draws to continue with: all, or those under which a plan has not reached,
    once they are clearly fewer."""
    left = np.flatnonzero(open_.any(axis=0))
    return left if len(left) < _FEWER * open_.shape[1] else np.arange(open_.shape[1])


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
