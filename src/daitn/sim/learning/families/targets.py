"""Targets and budgets, derived from what simple fixed routes reach in the noiseless world.

No judged policy has an influence: the routes are fixed orders (by size, by name, random, by the
gain of a first visit) over honest sites. Targets lie between what a poor route and the best one
reach; budgets are multiples of what the fastest one needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from daitn.objects.identifiers import OwnerId
from daitn.objects.intents import Budget, DataWanted, ModelWanted, Objective, TrainingIntent
from daitn.sim.learning.families.nodes import RECIPE
from daitn.sim.learning.learner import Examined
from daitn.sim.learning.noiseless import Noiseless
from daitn.sim.learning.world import LearningWorld, WorldStep
from daitn.topology.arrays import Floats

__all__ = ["Terms", "provisional", "settled"]

_MOST_VISITS = 48
_LEAST_VISITS = 12
_ROUNDS = 3
_RANDOM_ORDERS = 3
_LEAST_ABOVE_CHANCE = 0.05
_LEAST_BUDGET_S = 20.0
_USEFUL_EXAMPLES = 2000.0


@dataclass(frozen=True)
class Terms:
    """Terms of an owner's request. Each pair is a range to draw from."""

    slack: tuple[float, float] = (2.0, 6.0)
    """Time budget over what the reference needs."""
    usd_slack: tuple[float, float] | None = None
    examples_slack: tuple[float, float] | None = None
    ease: tuple[float, float] = (0.2, 0.97)
    """Position of the targets between a poor route (0) and a good one (1)."""
    reference_examples: tuple[int, ...] = (500,)
    """Amounts for the fixed rings, besides one epoch."""
    cheap_first: bool = False
    """The reference is the cheapest route, not the fastest."""
    beyond: bool = False
    """One target exceeds everything that any route reached."""


@dataclass(frozen=True)
class _Followed:
    """One fixed route: values, seconds and prices after each of its visits."""

    steps: tuple[WorldStep, ...]
    values: Floats
    seconds: Floats
    usd: Floats
    examples: Floats


def provisional(tests: Sequence[Examined], *topics: str) -> TrainingIntent:
    """An intent without meaningful targets, for an unfinished world."""
    return _intent(tests, [0.5] * len(tests), topics, Budget())


def settled(world: LearningWorld, terms: Terms) -> LearningWorld:
    """The world with targets and budgets in its intent, and the route that set them."""
    rng = np.random.default_rng((world.seed, 3))
    ground = Noiseless(world, budgets=False)
    routes = _followed(ground, list(_orders(ground, terms, rng)))
    assert routes, f"{world.family} {world.seed}: rules forbid every route"
    targets = _targets(world, routes, terms.ease, rng)
    reaching = [
        (route, k)
        for route in routes
        for k in range(len(route.steps))
        if (route.values[k] >= targets).all()
    ]
    route, last = min(
        reaching,
        key=lambda found: (
            found[0].usd[found[1]] if terms.cheap_first else 0.0,
            found[0].seconds[found[1]],
        ),
    )
    budget = _budget(route, last, terms, rng)
    wanted = [float(target) for target in targets]
    beyond = int(rng.integers(len(wanted))) if terms.beyond else None
    if beyond is not None:
        most = max(float(route.values[:, beyond].max()) for route in routes)
        wanted[beyond] = round(most + rng.uniform(0.4, 0.8) * (1.0 - most), 3)
    return replace(
        world,
        intent=_intent(world.tests, wanted, world.intent.data.topics, budget),
        reference=route.steps[: last + 1] if beyond is None else (),
        reachable=frozenset(
            test.objective for number, test in enumerate(world.tests) if number != beyond
        ),
    )


def _budget(route: _Followed, last: int, terms: Terms, rng: np.random.Generator) -> Budget:
    duration_s = max(_LEAST_BUDGET_S, float(route.seconds[last]) * rng.uniform(*terms.slack))
    cost_usd = examples = None
    if terms.usd_slack is not None:
        cost_usd = round(float(route.usd[last]) * rng.uniform(*terms.usd_slack) + 0.005, 3)
    if terms.examples_slack is not None:
        examples = int(route.examples[last] * rng.uniform(*terms.examples_slack))
    return Budget(duration_s=round(duration_s, 1), cost_usd=cost_usd, examples=examples)


def _targets(
    world: LearningWorld,
    routes: list[_Followed],
    ease: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    """Targets no higher than the values of the best single model of all routes."""
    chance = np.array([test.chance for test in world.tests])
    reached = np.concatenate([route.values for route in routes])
    best = np.maximum(reached.max(axis=0) - chance, 1e-6)
    good = reached[int(((reached - chance) / best).min(axis=1).argmax())]
    poor = np.mean([route.values[len(route.steps) // 4] for route in routes], axis=0)
    low = np.minimum(poor, chance + 0.7 * (good - chance))
    share = np.clip(rng.uniform(*ease) + rng.normal(0.0, 0.1, len(good)), 0.1, 0.98)
    targets = np.maximum(low + share * (good - low), chance + _LEAST_ABOVE_CHANCE)
    targets = np.maximum(np.minimum(targets, good), 0.001)
    return np.asarray(np.floor(targets * 1000.0) / 1000.0)


def _orders(
    ground: Noiseless, terms: Terms, rng: np.random.Generator
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Orders of (site, examples), to be repeated round by round."""
    world = ground.world
    honest = [k for k, site in enumerate(world.sites) if site.name in world.honest]
    size = {k: world.sites[k].node.datasets[0].samples for k in honest}
    price = {k: world.sites[k].node.datasets[0].price_usd_per_1k for k in honest}
    useful = _useful(ground, honest)
    orders = [
        sorted(honest, key=lambda k: -size[k]),
        honest,
        useful[: max(4, len(honest) // 2)],
        sorted(honest, key=lambda k: (price[k], -size[k])),
        *([int(k) for k in rng.permutation(honest)] for _ in range(_RANDOM_ORDERS)),
    ]
    for order in orders:
        chosen = order[:_MOST_VISITS]
        yield tuple((k, size[k]) for k in chosen)
        for examples in terms.reference_examples:
            yield tuple((k, examples) for k in chosen)


def _useful(ground: Noiseless, sites: Sequence[int]) -> list[int]:
    """Sites by what a first visit gains over all objectives."""
    rows = np.zeros(len(sites), dtype=np.int64)
    amounts = [float(ground.world.sites[k].node.datasets[0].samples) for k in sites]
    after = ground.visit(
        ground.start().take(rows), np.array(sites), np.minimum(amounts, _USEFUL_EXAMPLES)
    )
    gains = ground.values(after).sum(axis=1)
    return [sites[k] for k in np.argsort(-gains, kind="stable")]


def _followed(ground: Noiseless, orders: Sequence[tuple[tuple[int, int], ...]]) -> list[_Followed]:
    """Follow all orders at once, each round by round, skipping what rules forbid."""
    now = ground.start().take(np.zeros(len(orders), dtype=np.int64))
    most = [min(_MOST_VISITS, max(_LEAST_VISITS, _ROUNDS * len(order))) for order in orders]
    position, refused = [0] * len(orders), [0] * len(orders)
    steps: list[list[WorldStep]] = [[] for _ in orders]
    records: list[list[tuple[Floats, float, float, float]]] = [[] for _ in orders]
    while True:
        going = [
            k
            for k, order in enumerate(orders)
            if len(steps[k]) < most[k] and refused[k] < len(order)
        ]
        if not going:
            break
        chosen = [orders[k][position[k] % len(orders[k])] for k in going]
        sites = np.array([site for site, _ in chosen])
        amounts = np.array([float(examples) for _, examples in chosen])
        after = ground.visit(now.take(np.array(going)), sites, amounts)
        values = ground.values(after)
        now = now.replaced(np.array(going)[after.alive], after.take(after.alive))
        for row, k in enumerate(going):
            position[k] += 1
            refused[k] = 0 if after.alive[row] else refused[k] + 1
            if after.alive[row]:
                steps[k].append(WorldStep(*chosen[row]))
                spent = (after.seconds[row], after.usd[row], after.examples[row])
                records[k].append((values[row], *spent))
    return [
        _Followed(tuple(steps[k]), *(np.array(column) for column in zip(*records[k], strict=True)))
        for k in range(len(orders))
        if steps[k]
    ]


def _intent(
    tests: Sequence[Examined], targets: Sequence[float], topics: tuple[str, ...], budget: Budget
) -> TrainingIntent:
    return TrainingIntent(
        name="simulated",
        owner=OwnerId("owner"),
        model=ModelWanted(recipe=RECIPE),
        objectives=tuple(
            Objective(name=test.objective, topic=test.topic, at_least=target)
            for test, target in zip(tests, targets, strict=True)
        ),
        data=DataWanted(topics=topics),
        budget=budget,
    )
