"""How rounds would go on: plays them out under every set of parameters, as `rollout` does routes.

A round is the same each time: the same sites with as many examples, so all that differs from draw
to draw is what they teach, and after which round all targets are measured to hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.control.route.merged import merged_skills
from daitn.control.route.rollout import utility
from daitn.control.route.rounds import NextRound
from daitn.control.route.task import RouteTask
from daitn.control.route.value_model import Floats, Indices, Visits, after_visit, anchored, values
from daitn.objects.decisions import Round

__all__ = ["FEW", "HORIZON", "RoundsOutcome", "play_rounds"]

HORIZON = 64
"""Rounds that are looked ahead: more than visits of a route, each of which may be as long as some
rounds."""
FEW = 12
"""Draws by which sizes of a round are compared."""
_MOST_ROWS = 3_000
"""Sites times draws: with more sites, fewer draws are looked at."""
_FEWEST_DRAWS = 8


@dataclass(frozen=True)
class RoundsOutcome:
    """How rounds ended under N draws."""

    rounds: Indices
    """(N,): after which round (from 1) all targets held; 0 if they never did."""
    seconds: float
    """Until then, or until no further round fits; a mean."""
    effort: float
    """Least is best: that of `PlanOutcomes`."""
    chance: float
    """Weighted share of the draws that reach all targets."""


def play_rounds(
    task: RouteTask, found: NextRound, most_draws: int | None = None
) -> RoundsOutcome | None:
    """Rounds like this one from the latest model on, until the targets hold or nothing is left;
    none where not even one fits. `most_draws`: of those that are looked at."""
    planned = found.round
    if planned is None:
        return None
    usd = sum(stop.expected_cost_usd for stop in planned.visits)
    examples = sum(stop.examples for stop in planned.visits)
    most = _affordable(task, found.seconds, usd, float(examples))
    if most < 1:
        return None
    draws = _looked_at(task, len(planned.visits), most_draws or len(task.draws))
    rounds, missing = _followed(task, planned, most, draws)
    count = np.where(rounds > 0, rounds, most)
    spent = task.effort(count * found.seconds, count * usd)
    each = np.where(rounds > 0, spent, task.miss * (1.0 + missing) + 1e-3 * spent)
    weight = task.weight[draws]
    return RoundsOutcome(
        rounds=rounds,
        seconds=float(count @ weight / weight.sum() * found.seconds),
        effort=float(utility(each[None], weight, task.caution)[0]),
        chance=float((rounds > 0) @ weight / weight.sum()),
    )


def _affordable(task: RouteTask, seconds: float, usd: float, examples: float) -> int:
    limits = task.limits
    shares = [limits.seconds / max(seconds, 1e-9), limits.examples / max(examples, 1.0)]
    if usd > 0.0:
        shares.append(limits.cost_usd / usd)
    return int(min(HORIZON, *shares))


def _looked_at(task: RouteTask, sites: int, most: int) -> Indices:
    """The mode and as many other draws as there is time for, and the hopeful one."""
    count = len(task.draws)
    few = min(most, max(_FEWEST_DRAWS, _MOST_ROWS // sites))
    return np.arange(count) if few >= count else np.r_[0 : few - 1, count - 1]


def _followed(task: RouteTask, planned: Round, most: int, draws: Indices) -> tuple[Indices, Floats]:
    known, start = task.known, task.starts[0]
    position = known.index()
    site = np.array([position[f"{s.site}/{s.dataset}"] for s in planned.visits], dtype=np.int64)
    examples = np.array([float(stop.examples) for stop in planned.visits])
    sites, count = len(site), len(draws)
    each, row = np.repeat(site, count), np.tile(np.arange(count), sites)
    parameters, believed = task.draws.take(draws), start.believed[draws]
    tiled = parameters.take(row)
    taught = np.zeros_like(start.model.exposure)
    np.add.at(taught, known.field[site], known.share[site] * examples[:, None])
    skills = start.model.skills[draws]
    seen, exposure, fresh = start.model.seen, start.model.exposure, start.model.fresh
    rounds = np.zeros(count, dtype=np.int64)
    missing = np.ones(count)
    for number in range(1, most + 1):
        visit = Visits(
            site=each,
            examples=np.repeat(examples, count),
            before=seen[each],
            total=np.full(len(each), seen.sum()),
            exposure=exposure[None],
            fresh=np.full(len(each), fresh),
        )
        after = after_visit(known, tiled, skills[row], visit).reshape(sites, *skills.shape)
        skills = merged_skills(skills, after, examples, planned.algorithm)
        seen, exposure, fresh = seen.copy(), exposure + taught, False
        np.add.at(seen, site, examples)
        whole = (values(known, parameters, skills) * known.shares).sum(axis=2)
        measured = anchored(whole, believed, start.off[draws]) + task.noise[draws]
        short = np.maximum(0.0, task.targets - measured).sum(axis=1)
        open_ = rounds == 0
        missing = np.where(open_, short / task.short_at_start, missing)
        rounds[open_ & (short <= 0.0)] = number
        if rounds.all():
            break
    return rounds, missing
