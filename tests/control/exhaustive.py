"""The least effort of any route, by trying all of them: the oracle beside the search."""

from __future__ import annotations

import numpy as np
from daitn.control.route.problem import Problem


def least_effort(problem: Problem, depth: int) -> float:
    """Over all sequences of up to `depth` visits that reach the aims; infinite if none does.

    Like the search, without visits that gain nothing and without one option twice running.
    Routes that already take more than the best complete one are not followed: efforts only grow.
    """
    states, least = problem.starts, np.inf
    options, grid = len(problem.open), np.array(problem.grid)
    for _ in range(depth):
        count = len(states.start)
        before = states.take(np.repeat(np.arange(count), options * len(grid)))
        option = np.tile(np.repeat(np.arange(options), len(grid)), count)
        after = problem.visit(before, option, np.tile(grid, count * options))
        effort = problem.effort(after.seconds, after.cost_usd)
        missing = problem.shortfall(before.expected) > 0
        useful = missing & (after.expected - before.expected > problem.least_gain)
        kept = problem.visitable(before, option) & problem.within(after) & useful.any(axis=1)
        kept &= before.at != option
        done = kept & (problem.shortfall(after.expected) <= 0).all(axis=1)
        least = min(least, float(effort[done].min(initial=np.inf)))
        states = after.take(kept & ~done & (effort < least))
    return least
