"""The value model once more, for one set of parameters and number by number.

It is slow and plain: what `daitn.control.route.value_model` and `rollout` do over arrays is held to
it. Constants are theirs; formulas are written anew from what their docstrings say.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np

from daitn.control.route import value_model as array
from daitn.control.route.costs import NEVER_S
from daitn.control.route.rollout import Plan
from daitn.control.route.task import RouteTask, Start
from daitn.control.route.value_model import Draws, Setting

__all__ = ["Followed", "Parameters", "after_visit", "followed", "parameters", "values"]

Table = list[list[float]]


@dataclass(frozen=True)
class Parameters:
    """One set, as plain numbers."""

    tau: float
    warm: float
    ripe: float
    repeats: float
    fading: float
    labelled: float
    averaged: float
    ceiling: list[float]
    teaches: Table
    level: list[float]


def parameters(draws: Draws, row: int) -> Parameters:
    return Parameters(
        *(getattr(draws, name)[row].tolist() for name in Parameters.__dataclass_fields__)
    )


def after_visit(
    known: Setting,
    told: Parameters,
    skills: Table,
    site: int,
    examples: float,
    *,
    before: float,
    total: float,
    exposure: Table,
    fresh: bool,
) -> Table:
    """Skills (D, L) after one visit."""
    own_field = int(known.field[site])
    worth = _worth(known, told, site, examples, before, total)
    share = 1.0 if fresh else 1.0 - told.averaged
    after: Table = []
    for field, row in enumerate(skills):
        after.append([])
        for label, skill in enumerate(row):
            settled = (array._SETTLED / (exposure[field][label] + array._UNSETTLED)) ** (
                array._SETTLES
            )
            fades = told.fading / told.tau * examples * min(settled, array._FASTEST)
            if field == own_field:
                fades *= exp(-float(known.share[site, label]) / array._REHEARSED)
                growth = _rate(known, told, site, label) * worth
                speed = growth + fades
                towards = told.level[site] * growth / max(speed, array._LEAST)
                new = towards + (skill - towards) * exp(-speed)
            else:
                new = skill * exp(-fades * float(known.apart[own_field, field]))
            after[field].append(skill + share * (new - skill))
    return after


def _rate(known: Setting, told: Parameters, site: int, label: int) -> float:
    often = min(float(known.rate[site, label]), array._MOST_RATE) ** array._SPARSE
    rate: float = ((1.0 - told.labelled) + told.labelled * often) / told.tau
    return rate


def _worth(
    known: Setting, told: Parameters, site: int, examples: float, before: float, total: float
) -> float:
    """Examples that count in full."""
    if examples == 0:
        return 0.0
    horizon = told.repeats * float(known.records[site])
    again = horizon * (exp(-before / horizon) - exp(-(before + examples) / horizon))
    asleep = told.ripe * (exp(-total / told.ripe) - exp(-(total + examples) / told.ripe))
    return examples / (examples + told.warm) * (1.0 - asleep / examples) * again


def values(known: Setting, told: Parameters, skills: Table) -> Table:
    """Value (O, L) on each label of each objective."""
    found: Table = []
    for objective in range(len(known.objectives)):
        floor = float(known.chance[objective]) * (1.0 - told.labelled)
        found.append([])
        for label in range(len(known.labels)):
            missed = 1.0
            for field in range(len(known.fields)):
                missed *= 1.0 - told.teaches[field][objective] * skills[field][label]
            found[objective].append(floor + (told.ceiling[objective] - floor) * (1.0 - missed))
    return found


@dataclass(frozen=True)
class Followed:
    """How one plan ends under one draw."""

    visits: int
    missing: float
    seconds: float
    cost_usd: float
    examples: float


def followed(task: RouteTask, plan: Plan, row: int) -> Followed:
    """Follow a plan visit by visit, until all targets hold or it may not go on."""
    known, start = task.known, task.starts[plan.start]
    told = parameters(task.draws, row)
    skills: Table = start.model.skills[row].tolist()
    seen: list[float] = start.model.seen.tolist()
    exposure: Table = start.model.exposure.tolist()
    end = Followed(0, _missing(task, _measured_before(task, start)), 0.0, 0.0, 0.0)
    at = -1
    for made, (site, examples) in enumerate(plan.stops):
        moved_s = task.costs.start_s[plan.start, site]
        if at >= 0:
            moved_s = task.costs.move_s(np.array([at]), np.array([site]))[0]
        stay_s = task.costs.wait_s[site] + examples * task.costs.example_s[site]
        seconds = end.seconds + float(moved_s + stay_s + task.costs.visit_s[site])
        cost_usd = end.cost_usd + float(task.costs.price_usd[site]) * examples
        limits = task.limits
        over = seconds > limits.seconds or seconds >= NEVER_S or cost_usd > limits.cost_usd
        if over or end.examples + examples > limits.examples or not task.open[site]:
            return end
        skills = after_visit(
            known,
            told,
            skills,
            site,
            float(examples),
            before=seen[site],
            total=sum(seen),
            exposure=exposure,
            fresh=start.model.fresh and made == 0,
        )
        seen[site] += examples
        for label in range(len(known.labels)):
            exposure[known.field[site]][label] += float(known.share[site, label]) * examples
        measured = _measured(task, start, told, skills, row)
        missing = _missing(task, measured)
        end = Followed(0, missing, seconds, cost_usd, end.examples + examples)
        at = site
        if missing == 0.0:
            return Followed(made + 1, 0.0, end.seconds, end.cost_usd, end.examples)
    return end


def _measured(
    task: RouteTask, start: Start, told: Parameters, skills: Table, row: int
) -> list[float]:
    found = values(task.known, told, skills)
    measured = []
    for objective, by_label in enumerate(found):
        shares = task.known.shares[objective].tolist()
        whole = sum(value * share for value, share in zip(by_label, shares, strict=True))
        changed = abs(whole - float(start.believed[row, objective]))
        off = float(start.off[row, objective]) * array._STAYS * exp(-changed / array._FORGOTTEN)
        measured.append(min(1.0, max(0.0, whole + off)) + float(task.noise[row, objective]))
    return measured


def _measured_before(task: RouteTask, start: Start) -> list[float]:
    """What was measured, or what guessing reaches."""
    pairs = zip(start.measured.tolist(), task.known.chance.tolist(), strict=True)
    return [chance if value != value else value for value, chance in pairs]


def _missing(task: RouteTask, measured: list[float]) -> float:
    pairs = zip(task.targets.tolist(), measured, strict=True)
    short: float = sum(max(0.0, target - value) for target, value in pairs)
    return short / task.short_at_start
