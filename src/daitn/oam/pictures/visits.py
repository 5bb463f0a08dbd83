"""Facts about a job's visits, and colours, shared by the parts of the demo's picture."""

from __future__ import annotations

import math

from daitn.objects.jobs import JobView, VisitView

__all__ = ["LOSS_COLOUR", "objective_colour", "start_of", "successful", "visit_colour"]

LOSS_COLOUR = "#dc2626"
_COLOURS = ("#3b7dd8", "#d97706", "#0d9488", "#8b5cf6", "#db2777", "#65a30d")
"""Colours of the objectives in order; of medium lightness, to stand out on light and dark
backgrounds."""
_ROUNDING = 1e-9


def start_of(job: JobView, position: int) -> int:
    """Position of the visit that made the start model of this one; -1 means untrained.

    A visit reports its gains relative to its start, so the start is the last model with these
    values.
    """
    visit = job.route[position]
    before = {name: visit.values[name] - gain for name, gain in visit.gains.items()}

    def had(values: dict[str, float]) -> bool:
        return all(abs(values.get(n, math.inf) - v) <= _ROUNDING for n, v in before.items())

    for earlier in range(position - 1, -1, -1):
        if had(job.route[earlier].values):
            return earlier
    return -1 if position == 0 or had(job.untrained) else position - 1


def successful(job: JobView) -> frozenset[int]:
    """Positions of the visits that led to the best model; the others were abandoned."""
    made = [n for n, v in enumerate(job.route) if job.model and v.model == job.model.manifest]
    if not made:
        return frozenset(range(len(job.route)))
    chain = [made[0]]
    while (start := start_of(job, chain[-1])) >= 0:
        chain.append(start)
    return frozenset(chain)


def objective_colour(job: JobView, name: str) -> str:
    """Each objective has the same colour everywhere."""
    names = [objective.name for objective in job.objectives]
    return _COLOURS[names.index(name) % len(_COLOURS)]


def visit_colour(job: JobView, visit: VisitView) -> str:
    """Colour of the objective that gained most; the loss colour if none gained."""
    best = max(visit.gains, key=lambda name: visit.gains[name], default=None)
    if best is None or visit.gains[best] <= 0:
        return LOSS_COLOUR
    return objective_colour(job, best)
