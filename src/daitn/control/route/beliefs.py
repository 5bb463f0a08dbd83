"""What measured visits say of the knowledge model's parameters.

Parameters are corrections of the prior: of ln tau (one factor for this recipe and model), of
phi's logit, and of the logit of every a_os, which is a shift of the whole objective plus one of
the site's own. The shift of the objective is how a measurement at one site tells something of
sites that were never visited (hierarchical shrinkage).

Each has a Gaussian prior around 0; each measured change is a Gaussian observation of the change
that the model predicts, with the measurement's standard error on both sides and `_MODEL_SD` for
what the model leaves out. The estimate is the mode of the posterior, found by damped
Gauss-Newton (Levenberg 1944, Marquardt 1963) from the prior's mode: deterministic. Thus a short
gain is first blamed on slow learning, whose prior is wide, and on the site once further
examples there do not help. Noise shared by two visits (the measurement between them) is treated
as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daitn.control.route.knowledge import (
    Floats,
    Knowledge,
    Prior,
    absorbed,
    anchored,
    covered,
    shifted,
)
from daitn.control.route.question import VisitMade

__all__ = ["believed", "hopeful", "parents", "skills_after"]

_SD_LOG_TAU = 1.2
"""Recipes and model sizes learn at speeds that differ by a factor of three and more."""
_SD_LOGIT_PHI = 1.0
_SD_OBJECTIVE = 0.5
_SD_SITE = 1.0
_MODEL_SD = 0.02
"""Change of a value that the model's shape cannot tell."""
_DEFAULT_SE = 0.02
"""Standard error of a measurement that came without one: about 0.8 +- on 400 items."""
_SAME_VALUE = 1e-9
_STEP = 1e-4
_ROUNDS = 12


@dataclass(frozen=True)
class _Observations:
    """The visits to known options; rows of `measured`, `change` and `sigma` are (visit, O)."""

    prior: Prior
    columns: tuple[int, ...]
    examples: tuple[float, ...]
    built_on: tuple[int, ...]
    """Row of the visit that made the model that this one received; -1 for the start."""
    before: Floats
    change: Floats
    sigma: Floats
    """Infinite where a change was not measured."""


def hopeful(prior: Prior, deviations: float) -> Knowledge:
    """The prior with every parameter better than its mode by so many standard deviations.

    Before anything was measured a model's learning speed is known to a factor only: a verdict
    that shuts a job out must hold at the hopeful end as well.
    """
    affinity = np.full_like(prior.fit, deviations * np.hypot(_SD_OBJECTIVE, _SD_SITE))
    return Knowledge.settled(
        prior,
        log_tau=-deviations * _SD_LOG_TAU,
        logit_phi=-deviations * _SD_LOGIT_PHI,
        logit_affinity=affinity,
    )


def believed(prior: Prior, history: Sequence[VisitMade]) -> Knowledge:
    """The knowledge model with its parameters at the mode of their posterior."""
    seen = _observed(prior, history)
    visited = tuple(sorted(set(seen.columns)))
    count = len(prior.objectives)
    spread = np.array(
        [_SD_LOG_TAU, _SD_LOGIT_PHI, *[_SD_OBJECTIVE] * count, *[_SD_SITE] * (count * len(visited))]
    )
    theta = np.zeros(len(spread))
    if visited:
        theta = _mode(seen, visited, spread)
    log_tau, logit_phi, affinity = _unpacked(theta[None], prior, visited)
    return Knowledge.settled(
        prior,
        log_tau=float(log_tau[0]),
        logit_phi=float(logit_phi[0]),
        logit_affinity=affinity[0],
    )


def skills_after(knowledge: Knowledge, visits: Sequence[VisitMade]) -> Floats:
    """Skills (S,) of the model that these visits made; visits to options gone are left out."""
    column = knowledge.prior.index()
    skills = np.zeros((1, len(column)))
    for visit in visits:
        if visit.option_id in column:
            where = np.array([column[visit.option_id]])
            skills = knowledge.after(skills, where, np.array([float(visit.examples)]))
    reached: Floats = skills[0]
    return reached


def parents(history: Sequence[VisitMade]) -> tuple[int, ...]:
    """For each visit, the position of the visit whose model it received; -1 for the start.

    That is the latest earlier visit that ended at the values this one began with.
    """
    return tuple(
        next((i for i in reversed(range(k)) if _follows(history[i], visit)), -1)
        for k, visit in enumerate(history)
    )


def _follows(earlier: VisitMade, later: VisitMade) -> bool:
    shared = earlier.after.keys() & later.before.keys()
    return bool(shared) and all(
        abs(earlier.after[name] - later.before[name]) < _SAME_VALUE for name in shared
    )


def _observed(prior: Prior, history: Sequence[VisitMade]) -> _Observations:
    column = prior.index()
    rows = [k for k, visit in enumerate(history) if visit.option_id in column]
    row_of = {k: row for row, k in enumerate(rows)}
    origin = parents(history)
    shape = (len(rows), len(prior.objectives))
    before, change, sigma = np.zeros(shape), np.zeros(shape), np.full(shape, np.inf)
    for row, k in enumerate(rows):
        for o, name in enumerate(prior.objectives):
            made = history[k]
            before[row, o] = made.before.get(name, prior.chance[o])
            if name in made.after:
                error = made.standard_error.get(name) or _DEFAULT_SE
                change[row, o] = made.after[name] - before[row, o]
                sigma[row, o] = np.sqrt(2.0 * error**2 + _MODEL_SD**2)
    return _Observations(
        prior=prior,
        columns=tuple(column[history[k].option_id] for k in rows),
        examples=tuple(float(history[k].examples) for k in rows),
        built_on=tuple(_known_origin(origin, row_of, k) for k in rows),
        before=before,
        change=change,
        sigma=sigma,
    )


def _known_origin(origin: Sequence[int], row_of: dict[int, int], visit: int) -> int:
    """Row of the closest ancestor at an option that is still known."""
    ancestor = origin[visit]
    while ancestor >= 0 and ancestor not in row_of:
        ancestor = origin[ancestor]
    return row_of.get(ancestor, -1)


def _mode(seen: _Observations, visited: tuple[int, ...], spread: Floats) -> Floats:
    """Mode of the posterior; `spread` holds the prior's standard deviations."""
    theta = np.zeros(len(spread))
    residual, jacobian = _linearised(theta, seen, visited, spread)
    damping = 1e-2
    for _ in range(_ROUNDS):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.eye(len(theta)), -jacobian.T @ residual)
        trial, trial_jacobian = _linearised(theta + step, seen, visited, spread)
        if trial @ trial < residual @ residual:
            settled = float(np.abs(step).max()) < 1e-3
            theta, residual, jacobian = theta + step, trial, trial_jacobian
            damping = max(damping / 4.0, 1e-6)
            if settled:
                break
        else:
            damping *= 8.0
    return theta


def _linearised(
    theta: Floats, seen: _Observations, visited: tuple[int, ...], spread: Floats
) -> tuple[Floats, Floats]:
    """Residuals of observations and prior at `theta`, and their derivatives."""
    sets = np.vstack([theta, theta + _STEP * np.eye(len(theta))])
    predicted = _changes(sets, seen, visited)
    observed = ((predicted - seen.change) / seen.sigma).reshape(len(sets), -1)
    residuals = np.hstack([observed, sets / spread])
    return residuals[0], ((residuals[1:] - residuals[0]) / _STEP).T


def _changes(theta: Floats, seen: _Observations, visited: tuple[int, ...]) -> Floats:
    """Predicted change (N, visit, O) of every visit, under N parameter sets."""
    prior = seen.prior
    teaches, fades, scale = shifted(prior, *_unpacked(theta, prior, visited))
    start = np.zeros((len(theta), len(prior.options)))
    states: list[Floats] = []
    values: list[Floats] = []
    fading = prior.tau_fading
    fresh = covered(start, teaches, prior.shares, prior.chance)
    changes = np.empty((len(theta), *seen.change.shape))
    for row, (column, examples, origin) in enumerate(
        zip(seen.columns, seen.examples, seen.built_on, strict=True)
    ):
        skills, base = (states[origin], values[origin]) if origin >= 0 else (start, fresh)
        where = np.full(len(theta), column)
        amount = np.full(len(theta), examples)
        states.append(
            absorbed(
                skills, where, amount, prior.tau[column] * scale, fades[column], fading * scale
            )
        )
        values.append(covered(states[-1], teaches, prior.shares, prior.chance))
        before = seen.before[row]
        changes[:, row] = anchored(before, base, values[-1], prior.chance) - before
    return changes


def _unpacked(
    theta: Floats, prior: Prior, visited: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Parameter sets (N, ...) as shifts of ln tau (N,), phi (N,), affinities (N, S, O)."""
    count = len(prior.objectives)
    shape = (len(theta), len(prior.options), count)
    affinity = np.broadcast_to(theta[:, None, 2 : 2 + count], shape).copy()
    own = theta[:, 2 + count :].reshape(len(theta), len(visited), count)
    affinity[:, list(visited)] += own
    return theta[:, 0], theta[:, 1], affinity
