"""The basis of a decision, for people: beliefs about sites, obvious plans, earlier jobs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from daitn.control.route.obvious_plans import epochs, promising, skills_after
from daitn.control.route.priors import UNTAUGHT, untaught
from daitn.control.route.question import Believed, RouteQuestion
from daitn.control.route.rollout import PlanOutcomes
from daitn.control.route.task import RouteTask
from daitn.control.route.value_model import anchored, whole_values
from daitn.objects.decisions import Compared, SiteBelief
from daitn.objects.text import counted, figure
from daitn.topology.arrays import Floats

__all__ = ["compared", "experience_sentences", "site_beliefs"]

_SITES = 20
"""Sites whose beliefs a decision keeps, the most promising."""
_MOST_EXPLAINED = 4
"""Differences that experience made, the largest."""
_CLEAR = 0.25
"""Prior standard deviations from which a difference is worth reporting."""


def site_beliefs(task: RouteTask) -> tuple[SiteBelief, ...]:
    """What one epoch at each open data set is expected to teach the latest model now."""
    known, start, draws = task.known, task.starts[0], task.draws
    options = np.flatnonzero(task.open)
    if not len(options):
        return ()
    options = promising(task, 0, options, _SITES)
    amounts = np.array([epochs(task, int(option), 1.0) for option in options], dtype=np.float64)
    whole = whole_values(known, draws, skills_after(known, draws, start.model, options, amounts))
    believed, off = start.believed.T[:, None], start.off.T[:, None]
    gain = anchored(whole, believed, off) - anchored(believed, believed, off)
    weight = task.weight / task.weight.sum()
    mean = gain @ weight
    sd = np.sqrt((gain - mean[..., None]) ** 2 @ weight)
    seconds = task.costs.start_s[0, options] + task.costs.stay_s(options, amounts)
    return tuple(
        SiteBelief(
            candidate=known.options[k].id,
            visits=int(task.visits[k]),
            examples=int(amounts[at]),
            expected_s=float(seconds[at]),
            gain=_named(task, mean[:, at]),
            gain_sd=_named(task, sd[:, at]),
        )
        for at, k in enumerate(options.tolist())
    )


def _named(task: RouteTask, each: Floats) -> dict[str, float]:
    return {str(name): float(each[o]) for o, name in enumerate(task.known.objectives)}


def compared(outcome: PlanOutcomes) -> tuple[Compared, ...]:
    """The best variant of each obvious plan that may begin, best first."""
    found: dict[str, Compared] = {}
    for k in outcome.order().tolist():
        plan = outcome.plans[k]
        if outcome.allowed[k] and plan.found_by and "changed" not in plan.found_by:
            name = plan.found_by.partition(",")[0]
            seconds, chance = float(outcome.seconds[k].mean()), float(outcome.chance[k])
            found.setdefault(name, Compared(plan=plan.found_by, expected_s=seconds, chance=chance))
    return tuple(found.values())


def experience_sentences(question: RouteQuestion) -> tuple[str, ...]:
    """The earlier jobs that count, and how they changed the beliefs."""
    if not question.past_jobs:
        return ("no earlier job with this recipe counts",)
    changes: list[tuple[float, str]] = []
    for key, one in question.experience.items():
        kind = key.split(":")[0]
        before = question.begun.get(key) or untaught(key)
        moved = abs(one.mean - before.mean) / UNTAUGHT[kind].sd
        if kind in _WORDS and moved >= _CLEAR:
            changes.append((moved, _WORDS[kind](key.partition(":")[2], one, before)))
    jobs = counted(question.past_jobs, "earlier job")
    verb = "counts" if question.past_jobs == 1 else "count"
    recipe = question.intent.model.recipe
    return (f"{jobs} with the recipe {recipe} {verb}", *_largest(changes))


def _largest(changes: list[tuple[float, str]]) -> Iterator[str]:
    for _, words in sorted(changes, key=lambda change: (-change[0], change[1]))[:_MOST_EXPLAINED]:
        yield words


def _seconds(what: str) -> Callable[[str, Believed, Believed], str]:
    def words(_: str, now: Believed, before: Believed) -> str:
        taken, guess = math.exp(now.mean), math.exp(before.mean)
        assumed = f"without them, {figure(guess)} s would be assumed"
        return f"{what} takes about {figure(taken)} s; {assumed}"

    return words


def _factor(what: str) -> Callable[[str, Believed, Believed], str]:
    def words(_: str, now: Believed, before: Believed) -> str:
        factor = math.exp(now.mean - before.mean)
        return f"{what} {figure(factor)} times as long as would be assumed without them"

    return words


def _share(what: str) -> Callable[[str, Believed, Believed], str]:
    def words(name: str, now: Believed, before: Believed) -> str:
        share, guess = (1.0 / (1.0 + math.exp(-one.mean)) for one in (now, before))
        return f"{what.format(name)} is about {share:.2f}; without them, {guess:.2f}"

    return words


_WORDS: dict[str, Callable[[str, Believed, Believed], str]] = {
    "measuring": _seconds("measuring all objectives"),
    "overhead": _seconds("starting a visit, loading and storing"),
    "slower": _factor("training takes"),
    "tau": _factor("in examples, learning takes"),
    "ceiling": _share("the most that a model reaches on {}"),
    "level": _share("how well {} teaches its labels, from 0 to 1,"),
}
