"""Lessons of earlier jobs, as the prior of the next one.

A finished job leaves *lessons*: what its own measurements say about each parameter, without the
prior it began with. Lessons of jobs with the same recipe are pooled per parameter as in a
random-effects meta-analysis (DerSimonian and Laird, Controlled Clinical Trials 1986): jobs differ
by more than their errors, and so will the next one. Weak lessons of few jobs stay near `UNTAUGHT`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import msgspec
import numpy as np
from immutables import Map

from daitn.control.route.costs import overhead_s, slower
from daitn.control.route.posterior import Belief, believed
from daitn.control.route.priors import (
    SHAPE,
    advertised_gain,
    ceiling_key,
    is_known,
    level_key,
    prior,
    teaches_key,
    untaught,
)
from daitn.control.route.question import Believed, RouteQuestion
from daitn.control.route.task import brought
from daitn.control.route.value_model import Setting, setting
from daitn.topology.arrays import Floats

__all__ = ["Lesson", "PastJob", "lessons", "pooled"]

_NOTHING: Mapping[str, Believed] = Map()
_LEAST_SHARE = 0.1
"""For a lesson, measurements must give at least this share of the prior's information."""
_LEAST_SD = 0.05
_SLOWER_SD = 0.5
"""Short visits take longer per example than long ones."""
_LEAST_TIME = 1e-3
"""Seconds, or a factor; anything less is negligible."""
_BETWEEN = 0.3
"""Least standard deviation between jobs, on the unbounded scale: a third, for the speed."""
_PER_SIZE = 0.5
"""Growth of a lesson's standard deviation for each factor of e between the models' sizes."""


class Lesson(msgspec.Struct, frozen=True):
    """What a job's measurements say about one parameter."""

    mean: float
    sd: float


class PastJob(msgspec.Struct, frozen=True, kw_only=True):
    """The stored result of a finished job."""

    recipe: str
    parameters: int
    """Number of parameters of its model."""
    lessons: dict[str, Lesson]
    """By parameter, see `priors.prior`."""


def lessons(question: RouteQuestion, parameters: int) -> PastJob | None:
    """The lessons of a job that asks its last question; none if nothing was measured."""
    topology, objectives = question.topology, question.intent.objective_names()
    if not question.history or not all(topology.verifiers.get(name) for name in objectives):
        return None
    known = setting(topology, objectives)
    start = brought(question, known)
    belief = believed(known, prior(known, question.experience), question.history, start)
    return PastJob(
        recipe=question.intent.model.recipe,
        parameters=parameters,
        lessons=_lessons(belief) | dict(_times(question)),
    )


def pooled(
    past: Iterable[PastJob],
    recipe: str,
    parameters: int,
    begun: Mapping[str, Believed] = _NOTHING,
) -> dict[str, Believed]:
    """The prior for a model of this size, from earlier jobs with this recipe.

    `begun` is what the recipe itself reports.
    """
    learned: dict[str, list[tuple[float, float]]] = {}
    for job in past:
        if job.recipe != recipe:
            continue
        apart = abs(math.log(max(1, parameters) / max(1, job.parameters)))
        for key, lesson in job.lessons.items():
            if not (is_known(key) and math.isfinite(lesson.mean) and lesson.sd > 0.0):
                continue
            sd = math.hypot(lesson.sd, _PER_SIZE * apart)
            learned.setdefault(key, []).append((lesson.mean, sd))
    taught = {
        key: _pooled(found, begun.get(key) or untaught(key)) for key, found in learned.items()
    }
    return {**begun, **taught}


def _pooled(found: list[tuple[float, float]], base: Believed) -> Believed:
    """The belief about the next job's parameter."""
    base = Believed(base.mean, max(base.sd, _LEAST_SD))
    means = np.array([mean for mean, _ in found])
    variances = np.array([max(sd, _LEAST_SD) ** 2 for _, sd in found])
    weight = 1.0 / variances
    centre = float(weight @ means / weight.sum())
    spread = float(weight @ (means - centre) ** 2) - (len(found) - 1)
    scale = float(weight.sum() - (weight**2).sum() / weight.sum())
    between = max(_BETWEEN**2, spread / scale if scale > 0.0 else 0.0)
    between = min(between, base.sd**2)
    weight = 1.0 / (variances + between)
    precision = 1.0 / base.sd**2 + float(weight.sum())
    mean = (base.mean / base.sd**2 + float(weight @ means)) / precision
    return Believed(mean, min(base.sd, math.sqrt(1.0 / precision + between)))


def _lessons(belief: Belief) -> dict[str, Lesson]:
    known = belief.known
    after = (belief.root**2).sum(axis=1)
    base = _bases(known, len(belief.mode))
    learned: dict[str, Lesson] = {}
    for k, key in enumerate(_keys(belief)):
        before = 1.0 / belief.sd[k] ** 2
        variance = max(float(after[k]), 1e-9)
        precision = 1.0 / variance - before
        if precision > _LEAST_SHARE * before:
            own = (float(belief.mode[k]) / variance - belief.mean[k] * before) / precision
            learned[key] = Lesson(float(own - base[k]), 1.0 / math.sqrt(precision))
    return learned


def _times(question: RouteQuestion) -> Iterator[tuple[str, Lesson]]:
    """Durations of the parts of a visit, see `priors.guessed`."""
    history, options = question.history, question.topology.options
    took = {
        "measuring": question.verify_s,
        "overhead": overhead_s(history),
        "slower": slower(question.flops_per_example, history, options),
    }
    for key, measured in took.items():
        if measured is not None:
            sd = _SLOWER_SD if key == "slower" else _LEAST_SD
            yield key, Lesson(math.log(max(measured, _LEAST_TIME)), sd)


def _bases(known: Setting, count: int) -> Floats:
    """The baseline of the lessons: for what a field teaches, the prior by topic similarity."""
    objectives, fields = len(known.objectives), len(known.fields)
    bases, first = np.zeros(count), len(SHAPE) + objectives
    bases[first : first + fields * objectives] = [
        advertised_gain(known, d, o) for d in range(fields) for o in range(objectives)
    ]
    return bases


def _keys(belief: Belief) -> list[str]:
    """The parameters of a belief, in the order of its mode."""
    known = belief.known
    objectives = range(len(known.objectives))
    return [
        *SHAPE,
        *(ceiling_key(known, o) for o in objectives),
        *(teaches_key(known, d, o) for d in range(len(known.fields)) for o in objectives),
        *(level_key(known.options[s].id) for s in belief.visited),
    ]
