"""The obvious plans: what one would do without a planner.

They are candidates of every decision, so no plan is expected to be worse than they are, and the
search starts from them. Each continues from the job's state: sites that this model has seen least
come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from daitn.control.route.posterior import Taught
from daitn.control.route.rollout import HORIZON, Plan, Stop
from daitn.control.route.task import RouteTask, Start
from daitn.control.route.value_model import (
    Draws,
    Setting,
    after_visit,
    anchored,
    whole_values,
)
from daitn.topology.arrays import Floats, Indices

__all__ = ["GREEDY", "MEASURED", "amounts", "epochs", "obvious_plans", "promising", "skills_after"]

MEASURED = "best measured gain first"
GREEDY = "greedy by expected gain"
_EPOCHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""The value model overestimates long visits: with four and eight epochs as well, 114 development
worlds took 1.11 times as long (standard error 4 %), and 5 fewer reached their targets; with at most
one, 64 of them took 1.16 times as long as with two, and 3 fewer reached theirs."""
_FIXED = (100, 500)
"""Examples per visit in plans with a fixed amount."""
_LEAST_EXAMPLES = 32
"""Minimum per visit: one or two batches."""
_PLENTY = 4.0
"""Affordable epochs at an option from which nothing is scarce there."""
_CLEARLY = 0.3
"""A route returns to a checkpoint only if its total shortfall is smaller by this. When it always
could, it reached 0.90 of 97 development worlds; with 0.15, 0.3 and never 0.96, 0.97 and 0.97, in
0.94, 0.94 and 0.93 of the time."""
_LAST = 6
"""Options to try for the last visit."""
_GREEDY_DRAWS = 6
_GREEDY_OPTIONS = 48
"""Limit on the options that the greedy plan examines in each step: the most promising ones at the
start. The other plans go through all options."""


def amounts(task: RouteTask, option: int) -> tuple[int, ...]:
    """Amounts of examples for a visit to an option: from an eighth of an epoch to two."""
    return tuple(dict.fromkeys(epochs(task, option, count) for count in _EPOCHS))


def epochs(task: RouteTask, option: int, count: float) -> int:
    """The number of examples in `count` epochs at an option."""
    return at_least(task, option, round(count * float(task.known.records[option])))


def at_least(task: RouteTask, option: int, examples: int) -> int:
    """This many examples at an option, or the fewest that are worth a visit and allowed there."""
    return max(_LEAST_EXAMPLES, int(task.known.least[option]), examples)


def obvious_plans(task: RouteTask) -> Iterator[Plan]:
    """Every obvious plan from the latest model, and from each checkpoint worth returning to."""
    known, costs = task.known, task.costs
    epoch_s = costs.example_s * known.records
    fit = known.fit[known.field]
    for row, start in enumerate(task.starts):
        measured = np.where(np.isnan(start.measured), known.chance, start.measured)
        short = np.maximum(0.0, task.targets - measured)
        if row and not _worth_going_back(task, start, float(short.sum())):
            continue
        wanted = fit @ (short / max(1e-9, float(short.sum())))
        nearness = costs.start_s[row] + epoch_s
        price = costs.price_usd * known.records
        orders: dict[str, tuple[Floats, tuple[float, ...]]] = {
            "by size": (-known.records, (0.5, 1.0, 2.0)),
            "ring": (np.arange(len(known.records), dtype=float), (0.25, 1.0)),
            "best fit first": (-wanted * np.log1p(known.records), (1.0, 2.0)),
            "nearest first": (nearness, (1.0,)),
        }
        if not np.isnan(task.gained).all():
            orders[MEASURED] = (_by_measured_gain(task, epoch_s), (1.0,))
        if price.any():
            orders["cheapest first"] = (price / known.records, (1.0,))
        for name, (order, counts) in orders.items():
            ranked = _ranked(task, order, anew=name == MEASURED)
            for count in counts:
                stops = _round(ranked, [epochs(task, option, count) for option in ranked])
                yield Plan(row, stops, f"{name}, {_turn(count)} a visit")
        ranked = _ranked(task, np.arange(len(known.records), dtype=float))
        for examples in _FIXED:
            stops = _round(ranked, [at_least(task, option, examples) for option in ranked])
            yield Plan(row, stops, f"ring, {examples} examples a visit")
        if task.open.any():
            yield Plan(row, _greedy(task, row), GREEDY)
            yield from _with_all_that_is_left(task, row)


def _turn(count: float) -> str:
    return "1 epoch" if count == 1.0 else f"{count:g} epochs"


def _worth_going_back(task: RouteTask, start: Start, short: float) -> bool:
    """Whether a checkpoint is clearly better than the latest model, or may travel where that may
    not. One that is slightly better was lucky, and returning to it would lose what was learned
    since."""
    further = start.allowed & ~task.starts[0].allowed
    return short < task.short_at_start - _CLEARLY or bool(further.any())


def _with_all_that_is_left(task: RouteTask, row: int) -> Iterator[Plan]:
    """One visit that uses up the remaining time, money and examples, if these are scarce."""
    costs, limits = task.costs, task.limits
    options = np.flatnonzero(task.open)
    waiting_s = costs.start_s[row, options] + costs.stay_s(options, 0.0)
    affordable = np.minimum(
        (limits.seconds - waiting_s) / np.maximum(costs.example_s[options], 1e-12),
        np.where(
            costs.price_usd[options] > 0.0,
            limits.cost_usd / np.maximum(costs.price_usd[options], 1e-12),
            np.inf,
        ),
    )
    most = np.minimum(affordable * (1.0 - 1e-9), limits.examples)
    least = np.maximum(_LEAST_EXAMPLES, task.known.least[options])
    scarce = (most >= least) & (most < _PLENTY * task.known.records[options])
    if scarce.any():
        for k in promising(task, row, options[scarce], _LAST):
            amount = int(most[np.flatnonzero(options == k)[0]])
            yield Plan(row, ((int(k), amount),), "one visit with all that is left")


def _by_measured_gain(task: RouteTask, epoch_s: Floats) -> Floats:
    """Ordered by measured gain: never-visited sites first, then largest first.

    Then those whose last visit gained, by gain per time; then the others, least visited first.
    """
    rate = task.gained / np.maximum(epoch_s + task.costs.visit_s, 1e-9)
    order: Floats = np.where(rate > 0.0, -rate, task.visits)
    return np.where(np.isnan(rate), -1e12 - task.known.records, order)


def _ranked(task: RouteTask, order: Floats, *, anew: bool = False) -> list[int]:
    """Open options: least visited first, unless `anew`, then by `order`."""
    ranked = np.argsort(order, kind="stable") if anew else np.lexsort((order, task.visits))
    return [int(k) for k in ranked if task.open[k]]


def _round(ranked: list[int], examples: list[int]) -> tuple[Stop, ...]:
    """One after the other, then again from the start."""
    stops = list(zip(ranked, examples, strict=True))
    return tuple(stops[i % len(stops)] for i in range(HORIZON)) if stops else ()


def _greedy(task: RouteTask, row: int) -> tuple[Stop, ...]:
    """At each step, the visit that reduces the shortfall most per effort, over a few draws.

    Once none of these is short of anything, one epoch at a time by size.
    """
    known, start = task.known, task.starts[row]
    rows = np.arange(min(_GREEDY_DRAWS, len(task.draws)))
    few = task.draws.take(rows)
    model = replace(start.model, skills=start.model.skills[rows])
    candidates = _worth_looking(task, row)
    option = np.array([k for k, _ in candidates], dtype=np.int64)
    examples = np.array([float(n) for _, n in candidates])
    stay = _effort(task, 0.0, option, examples)
    now, at = _short(task, few, model.grid[:, :, None], start, rows)[0], -1
    stops: list[Stop] = []
    while len(stops) < HORIZON and now.any():
        after = skills_after(known, few, model, option, examples)
        left = _short(task, few, after, start, rows)
        moved = (
            task.costs.start_s[row, option]
            if at < 0
            else task.costs.move_s(np.full(len(option), at), option)
        )
        effort = stay + task.effort(moved, np.zeros(len(option)))
        best = int(((now - left).mean(axis=1) / np.maximum(effort, 1e-12)).argmax())
        stops.append(candidates[best])
        at = candidates[best][0]
        model, now = model.made(known, at, float(examples[best]), after[:, :, best]), left[best]
    largest = _ranked(task, -known.records)
    rest = _round(largest, [epochs(task, k, 1.0) for k in largest])
    return (*stops, *rest)[:HORIZON]


def skills_after(
    known: Setting, draws: Draws, model: Taught, option: Indices, examples: Floats
) -> Floats:
    """Skills (D, L, P, N) after each of P visits that one model might make."""
    visits = model.visited(known, option[:, None], examples[:, None])
    return after_visit(draws, model.grid[:, :, None], visits)


def _effort(
    task: RouteTask, transfer_s: Floats | float, option: Indices, examples: Floats
) -> Floats:
    """Effort of visits with `transfer_s` seconds of transfer."""
    costs = task.costs
    seconds = transfer_s + costs.stay_s(option, examples)
    return task.effort(seconds, costs.price_usd[option] * examples)


def _worth_looking(task: RouteTask, row: int) -> list[Stop]:
    options = np.flatnonzero(task.open)
    if len(options) > _GREEDY_OPTIONS:
        options = promising(task, row, options, _GREEDY_OPTIONS)
    grids = {int(k): amounts(task, int(k)) for k in options}
    return [(k, n) for k, grid in grids.items() for n in grid[2:6] or grid]


def promising(task: RouteTask, row: int, options: Indices, most: int) -> Indices:
    """The `most` options that reduce the shortfall most per effort in one epoch, at the mode."""
    known, start = task.known, task.starts[row]
    first = np.zeros(1, dtype=np.int64)
    mode, records = task.draws.take(first), known.records[options]
    model = replace(start.model, skills=start.model.skills[first])
    after = skills_after(known, mode, model, options, records)
    left = _short(task, mode, after, start, first)[:, 0]
    now = _short(task, mode, model.grid[:, :, None], start, first)[0, 0]
    effort = _effort(task, task.costs.start_s[row, options], options, records)
    rate = (now - left) / np.maximum(effort, 1e-12)
    best: Indices = options[np.argsort(-rate, kind="stable")[:most]]
    return best


def _short(task: RouteTask, draws: Draws, skills: Floats, start: Start, rows: Indices) -> Floats:
    """(P, N): total shortfall from the targets of skills (D, L, P, N) under `draws`, which are
    those of the task at `rows`."""
    whole = whole_values(task.known, draws, skills)
    measured = anchored(whole, start.believed[rows].T[:, None], start.off[rows].T[:, None])
    short: Floats = np.maximum(0.0, task.targets[:, None, None] - measured).sum(axis=0)
    return short
