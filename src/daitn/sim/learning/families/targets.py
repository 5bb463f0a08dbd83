"""Targets and budgets, set by what simple fixed routes reach in the noiseless world.

No policy that is judged has a say: the routes are fixed orders (by size, by name, random, by what
the data sets really hold), followed over honest sites. Targets lie between what a poor one and
the best one reach; budgets are multiples of what the soonest one needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from daitn.objects.identifiers import OwnerId
from daitn.objects.intents import Budget, DataWanted, ModelWanted, Objective, TrainingIntent
from daitn.sim.learning.families.draft import ANY_RECIPE, ROOT, Draft
from daitn.sim.learning.learner import Floats
from daitn.sim.learning.noiseless import Noiseless
from daitn.sim.learning.world import LearningWorld, Step

__all__ = ["finished", "settled"]

_MOST_VISITS = 48
_RANDOM_ORDERS = 3
_LEAST_ABOVE_CHANCE = 0.05
_LEAST_BUDGET_S = 20.0


@dataclass(frozen=True)
class _Followed:
    """One fixed route: values, seconds and prices after each of its visits."""

    steps: tuple[Step, ...]
    values: Floats
    seconds: Floats
    usd: Floats
    examples: Floats


def finished(draft: Draft) -> LearningWorld:
    """The world of a draft, with its intent."""
    ground = draft.ground()
    plain = LearningWorld(
        family=draft.family,
        seed=draft.seed,
        intent=_intent(draft, [0.5] * len(draft.objectives), Budget()),
        needs=draft.needs(),
        sites=ground,
        verifiers=draft.verifiers(),
        tests=draft.tests(),
        learner=draft.learner(),
        link_factor=draft.link_factor,
        honest=frozenset(
            site.name for site, of in zip(ground, draft.sites, strict=True) if not of.lies
        ),
    )
    return settled(plain, draft)


def settled(world: LearningWorld, draft: Draft) -> LearningWorld:
    """The world with targets and budgets in its intent, and the route that set them."""
    rng = np.random.default_rng((draft.seed, 3))
    routes = [r for r in (_follow(world, o) for o in _orders(world, draft, rng)) if r.steps]
    assert routes, f"no honest route in {draft.family} {draft.seed}"
    targets = _targets(world, routes, draft.ease, rng)
    reaching = [
        (route, k)
        for route in routes
        for k in range(len(route.steps))
        if (route.values[k] >= targets).all()
    ]
    assert reaching, "the targets are below what one of the routes reached"
    route, last = min(
        reaching,
        key=lambda found: (
            found[0].usd[found[1]] if draft.cheap_first else 0.0,
            found[0].seconds[found[1]],
        ),
    )
    budget = Budget(
        duration_s=round(
            max(_LEAST_BUDGET_S, float(route.seconds[last]) * rng.uniform(*draft.slack)), 1
        ),
        cost_usd=(
            None
            if draft.usd_slack is None
            else round(float(route.usd[last]) * rng.uniform(*draft.usd_slack) + 0.005, 3)
        ),
        examples=(
            None
            if draft.examples_slack is None
            else int(route.examples[last] * rng.uniform(*draft.examples_slack))
        ),
    )
    return replace(
        world,
        intent=_intent(draft, [float(target) for target in targets], budget),
        reference=route.steps[: last + 1],
    )


def _targets(
    world: LearningWorld,
    routes: list[_Followed],
    ease: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    chance = np.array([test.chance for test in world.tests])
    reached = np.concatenate([route.values for route in routes])
    best = np.maximum(reached.max(axis=0) - chance, 1e-6)
    good = reached[int(((reached - chance) / best).min(axis=1).argmax())]
    poor = np.mean([route.values[len(route.steps) // 4] for route in routes], axis=0)
    low = np.minimum(poor, chance + 0.7 * (good - chance))
    share = np.clip(rng.uniform(*ease) + rng.normal(0.0, 0.1, len(good)), 0.1, 0.98)
    targets = np.maximum(low + share * (good - low), chance + _LEAST_ABOVE_CHANCE)
    return np.asarray(np.floor(np.minimum(targets, good) * 1000.0) / 1000.0)


def _orders(
    world: LearningWorld, draft: Draft, rng: np.random.Generator
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Orders of (site, examples), to be gone round by round."""
    honest = [k for k, site in enumerate(world.sites) if site.name in world.honest]
    size = {k: draft.sites[k].records for k in honest}
    by_size = sorted(honest, key=lambda k: -size[k])[:_MOST_VISITS]
    useful = sorted(honest, key=lambda k: -_usefulness(draft, k))[: max(4, len(honest) // 2)]
    cheap = sorted(honest, key=lambda k: (draft.sites[k].price_usd_per_1k, -size[k]))
    orders = [by_size, honest[:_MOST_VISITS], useful[:_MOST_VISITS], cheap[:_MOST_VISITS]]
    orders += [
        list(map(int, rng.permutation(honest)))[:_MOST_VISITS] for _ in range(_RANDOM_ORDERS)
    ]
    for order in orders:
        yield tuple((k, size[k]) for k in order)
        for examples in draft.reference_examples:
            yield tuple((k, examples) for k in order)


def _usefulness(draft: Draft, number: int) -> float:
    """Records times how much they count for the objectives."""
    site = draft.sites[number]
    return float(min(site.records, 2000) * draft.transfer[site.topic].sum())


def _follow(world: LearningWorld, order: tuple[tuple[int, int], ...]) -> _Followed:
    """Round by round, leaving out what rules forbid."""
    ground = Noiseless(world, budgets=False)
    now = ground.start()
    steps: list[Step] = []
    values, seconds, usd, examples = [], [], [], []
    position = refused = 0
    while len(steps) < min(_MOST_VISITS, max(12, 3 * len(order))) and refused < len(order):
        site, amount = order[position % len(order)]
        position += 1
        after = ground.visit(now, np.array([site]), np.array([float(amount)]))
        if not after.alive[0]:
            refused += 1
            continue
        refused = 0
        now = after
        steps.append(Step(site, amount))
        values.append(ground.values(now)[0])
        seconds.append(now.seconds[0])
        usd.append(now.usd[0])
        examples.append(now.examples[0])
    return _Followed(
        tuple(steps), np.array(values), np.array(seconds), np.array(usd), np.array(examples)
    )


def _intent(draft: Draft, targets: list[float], budget: Budget) -> TrainingIntent:
    return TrainingIntent(
        name="simulated",
        owner=OwnerId("owner"),
        model=ModelWanted(recipe=ANY_RECIPE),
        objectives=tuple(
            Objective(name=test.objective, topic=test.topic, at_least=target)
            for test, target in zip(draft.tests(), targets, strict=True)
        ),
        data=DataWanted(topics=(ROOT,)),
        budget=budget,
    )
