"""Local search for a placement: repeatedly apply the best single change.

A change adds a model to a facility (new, or moved from another one), drops it, exchanges two models
at a full facility, or swaps the places of two; see Korupolu, Plaxton and Rajaraman, "Analysis of a
local search heuristic for facility location problems", Journal of Algorithms 2000. The gain of
changing one model depends on that model's places alone, so after each step only the changed models
are recomputed. The tests compare it with an exhaustive search over small cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.control.placement.problem import PlacementProblem, cost_of, costs_of_model
from daitn.topology.arrays import Flags, Floats

__all__ = ["improved"]

_LEAST_GAIN = 1e-9
"""Seconds per second; smaller gains are rounding errors."""
_MOST_STEPS = 10
"""Changes per model and facility: far more than was ever needed."""
_MOVES = 12
"""Move targets to try: those where one more replica gains most. With at most this many facilities,
every move is tried."""
_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class _Move:
    """A model moves from one place to another; either may be `_NOWHERE`."""

    model: int
    source: int
    target: int


_Change = tuple[float, tuple[_Move, ...]]
"""Its cost (negative: a saving), and its moves."""
_NONE: _Change = (float("inf"), ())


def improved(problem: PlacementProblem) -> Flags:
    """A placement that no single change improves; in large networks, nearly so.

    Searched from the current placement and from the empty one: the second finds what is many moves
    away.
    """
    standing = (problem.standing & (problem.rate > 0)) | problem.fixed
    found = _descended(problem, standing)
    other = _descended(problem, problem.fixed)
    return other if cost_of(problem, other) < cost_of(problem, found) - _LEAST_GAIN else found


def _descended(problem: PlacementProblem, start: Flags) -> Flags:
    search = _Search(problem, start)
    for _ in range(_MOST_STEPS * sum(start.shape)):
        if not search.step():
            break
    return search.placed


class _Search:
    """One placement, and the cost of each change to it, ignoring memory. Infinite means
    impossible."""

    def __init__(self, problem: PlacementProblem, start: Flags) -> None:
        self._problem = problem
        self.placed = start.copy()
        self._room = problem.room(start)
        self._add = np.full(start.shape, np.inf)
        self._drop = np.full(start.shape, np.inf)
        self._shift = np.full((*start.shape, start.shape[1]), np.inf)
        """m x f x f: cost of moving a model from one place to another, where computed."""
        self._stale: set[int] = set()
        """Models whose `_shift` must be recomputed."""
        for model in range(len(start)):
            self._work_out(model)

    def step(self) -> bool:
        """Apply the best change, if one is worthwhile.

        Moves and exchanges cost more to evaluate, so they are tried only once no addition or
        removal helps.
        """
        cost, moves = min(self._dropping(), self._adding(), key=_cost)
        if cost > -_LEAST_GAIN and not (self._room < 0.0).any():
            self._work_out_shifts()
            roomy = np.where(self._has_room()[:, None, :], self._shift, np.inf)
            cost, moves = min(_shifting(roomy), self._exchanging(roomy), key=_cost)
            if cost > -_LEAST_GAIN:
                cost, moves = self._swapping()
        if not moves or (cost > -_LEAST_GAIN and not (self._room < 0.0).any()):
            return False
        for move in moves:
            if move.source != _NOWHERE:
                self.placed[move.model, move.source] = False
            if move.target != _NOWHERE:
                self.placed[move.model, move.target] = True
        self._room = self._problem.room(self.placed)
        for move in moves:
            self._work_out(move.model)
        return True

    def _work_out(self, model: int) -> None:
        """Recompute the costs of adding the model anywhere and of dropping it anywhere."""
        problem, here = self._problem, self.placed[model]
        free = np.flatnonzero(~here & (problem.rate[model] > 0))
        leaves = np.flatnonzero(here & ~problem.fixed[model])
        changed = np.repeat(here[None, :], 1 + len(free) + len(leaves), axis=0)
        changed[1 + np.arange(len(free)), free] = True
        changed[1 + len(free) + np.arange(len(leaves)), leaves] = False
        costs = costs_of_model(problem, model, changed)
        self._add[model] = self._drop[model] = np.inf
        self._add[model, free] = costs[1 : 1 + len(free)] - costs[0]
        self._drop[model, leaves] = costs[1 + len(free) :] - costs[0]
        self._stale.add(model)

    def _work_out_shifts(self) -> None:
        for model in self._stale:
            self._shift[model] = self._shifts_of(model)
        self._stale.clear()

    def _shifts_of(self, model: int) -> Floats:
        """f x f: cost of moving a model from one place to another."""
        problem, here = self._problem, self.placed[model]
        shifts = np.full((len(here), len(here)), np.inf)
        leaves = np.flatnonzero(np.isfinite(self._drop[model]))
        free = np.flatnonzero(np.isfinite(self._add[model]))
        targets = free[np.argsort(self._add[model, free], kind="stable")[:_MOVES]]
        if leaves.size and targets.size:
            changed = np.repeat(here[None, :], 1 + len(leaves) * len(targets), axis=0)
            rows = 1 + np.arange(len(leaves) * len(targets))
            changed[rows, np.repeat(leaves, len(targets))] = False
            changed[rows, np.tile(targets, len(leaves))] = True
            costs = costs_of_model(problem, model, changed)
            shifts[np.ix_(leaves, targets)] = (costs[1:] - costs[0]).reshape(len(leaves), -1)
        return shifts

    def _dropping(self) -> _Change:
        """The best removal; restricted to overfull facilities if there are any."""
        full = self._room < 0.0
        drop = np.where(full, self._drop, np.inf) if full.any() else self._drop
        model, site = _least(drop)
        if np.isinf(drop[model, site]):
            return _NONE
        return float(drop[model, site]), (_Move(model, site, _NOWHERE),)

    def _adding(self) -> _Change:
        """The best addition where there is room."""
        if (self._room < 0.0).any():
            return _NONE
        add = np.where(self._has_room(), self._add, np.inf)
        model, site = _least(add)
        return float(add[model, site]), (_Move(model, _NOWHERE, site),)

    def _exchanging(self, roomy: Floats) -> _Change:
        """The best pair of a model that moves to a full facility and one that makes room for it."""
        size, best = self._problem.size, _NONE
        come = np.minimum(self._add, self._shift.min(axis=1))
        go = np.minimum(self._drop, roomy.min(axis=2))
        for site in np.flatnonzero((~self._has_room() & np.isfinite(come)).any(axis=0)):
            for other in np.flatnonzero(np.isfinite(go[:, site])):
                fit = size <= self._room[site] + size[other]
                fit[other] = False
                costs = np.where(fit, come[:, site], np.inf) + go[other, site]
                model = int(costs.argmin())
                if costs[model] < best[0]:
                    gone = roomy[other, site]
                    target = int(gone.argmin())
                    if gone[target] >= self._drop[other, site]:
                        target = _NOWHERE
                    source = int(self._shift[model, :, site].argmin())
                    if self._shift[model, source, site] >= self._add[model, site]:
                        source = _NOWHERE
                    moves = _Move(int(other), int(site), target), _Move(model, source, int(site))
                    best = float(costs[model]), moves
        return best

    def _swapping(self) -> _Change:
        """The best pair of models that take each other's places."""
        size, shifts = self._problem.size, self._shift
        models, sources, targets = np.nonzero(np.isfinite(shifts))
        if not models.size:
            return _NONE
        costs = shifts[models, sources, targets, None] + shifts[:, targets, sources].T
        grown = size[models, None] - size
        fit = (grown <= self._room[targets, None]) & (-grown <= self._room[sources, None])
        costs = np.where(fit, costs, np.inf)
        at, other = _least(costs)
        source, target = int(sources[at]), int(targets[at])
        moves = _Move(int(models[at]), source, target), _Move(other, target, source)
        return float(costs[at, other]), moves

    def _has_room(self) -> Flags:
        """m x f: whether the model fits."""
        return self._problem.size[:, None] <= self._room


def _shifting(roomy: Floats) -> _Change:
    """The best move to a place with room, by the costs in `roomy`."""
    model, source, target = np.unravel_index(int(roomy.argmin()), roomy.shape)
    move = _Move(int(model), int(source), int(target))
    return float(roomy[model, source, target]), (move,)


def _cost(change: _Change) -> float:
    return change[0]


def _least(values: Floats) -> tuple[int, int]:
    model, site = np.unravel_index(int(values.argmin()), values.shape)
    return int(model), int(site)
