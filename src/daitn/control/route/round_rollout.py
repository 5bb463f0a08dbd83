"""Predicts the outcome of rounds: simulates them under every set of parameters, as `rollout` does
for routes.

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
from daitn.control.route.value_model import after_visit, anchored, visits_to, whole_values
from daitn.objects.decisions import Round
from daitn.topology.arrays import Floats, Indices

__all__ = ["FEW", "HORIZON", "RoundsOutcome", "play_rounds"]

HORIZON = 64
"""Rounds to look ahead: more than the visits of a route, since one visit may take as long as
several rounds."""
FEW = 12
"""Draws with which sizes of a round are compared."""
_MOST_ROWS = 3_000
"""Sites times draws: with more sites, fewer draws are used."""
_FEWEST_DRAWS = 8


@dataclass(frozen=True)
class RoundsOutcome:
    """The outcomes of rounds under N draws."""

    rounds: Indices
    """(N,): the round (from 1) after which all targets held; 0 if they never did."""
    seconds: float
    """Mean seconds until then, or until no further round fits."""
    effort: float
    """Least is best, as in `PlanOutcomes`."""
    chance: float
    """Weighted share of the draws that reach all targets."""


def play_rounds(
    task: RouteTask, found: NextRound, most_draws: int | None = None
) -> RoundsOutcome | None:
    """Rounds like this one from the latest model on, until the targets hold or nothing is left;
    none if not even one fits. `most_draws`: maximum number of draws used."""
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
    """The mode, as many other draws as time permits, and the hopeful one."""
    count = len(task.draws)
    few = min(most, max(_FEWEST_DRAWS, _MOST_ROWS // sites))
    return np.arange(count) if few >= count else np.r_[0 : few - 1, count - 1]


def _followed(task: RouteTask, planned: Round, most: int, draws: Indices) -> tuple[Indices, Floats]:
    known, start = task.known, task.starts[0]
    position = known.index()
    site = np.array([position[f"{s.site}/{s.dataset}"] for s in planned.visits], dtype=np.int64)
    examples = np.array([float(stop.examples) for stop in planned.visits])
    sites, count = len(site), len(draws)
    parameters = task.draws.take(draws)
    believed, off, noise = start.believed[draws].T, start.off[draws].T, task.noise[draws].T
    taught = np.zeros_like(start.model.exposure)
    np.add.at(taught, known.field[site], known.share[site] * examples[:, None])
    skills = start.model.grid[..., draws]
    seen, exposure, fresh = start.model.seen, start.model.exposure, start.model.fresh
    rounds = np.zeros(count, dtype=np.int64)
    missing = np.ones(count)
    for number in range(1, most + 1):
        visit = visits_to(
            known,
            site[:, None],
            examples[:, None],
            before=seen[site][:, None],
            total=np.full((sites, 1), seen.sum()),
            exposure=exposure[..., None, None],
            fresh=np.full((sites, 1), fresh),
        )
        after = np.moveaxis(after_visit(parameters, skills[:, :, None], visit), 2, 0)
        skills = merged_skills(skills, after, examples, planned.algorithm)
        seen, exposure, fresh = seen.copy(), exposure + taught, False
        np.add.at(seen, site, examples)
        measured = anchored(whole_values(known, parameters, skills), believed, off) + noise
        short = np.maximum(0.0, task.targets[:, None] - measured).sum(axis=0)
        open_ = rounds == 0
        missing = np.where(open_, short / task.short_at_start, missing)
        rounds[open_ & (short <= 0.0)] = number
        if rounds.all():
            break
    return rounds, missing
