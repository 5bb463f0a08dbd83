"""The best route known in hindsight, for each episode.

A beam search with access to the noiseless world, together with all policies' results. It shows how
good a policy could have been, as far as known, but proves nothing: a better route may exist, and
luck lets a measured route end before a noiseless one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daitn.sim.learning.episode import Episode
from daitn.sim.learning.noiseless import Noiseless, Travellers
from daitn.sim.learning.world import LearningWorld
from daitn.topology.arrays import Floats, Indices

__all__ = ["Hindsight", "hindsight", "searched"]

_WIDTH = 60
_DEPTH = 20
_SITES = 14
"""Sites that the search considers: those that gain most, and most per second, in turn per
objective."""
_AMOUNTS = (60, 150, 400, 1000, 2500, 6000)
"""Examples of a visit, besides one and two epochs."""


@dataclass(frozen=True)
class Hindsight:
    """The fastest known route."""

    seconds: float
    examples: float
    """Fewest examples of any route or policy that reached the targets."""
    by: str
    """`search`, `reference` (the route that set the targets), or the policy that was faster."""


def hindsight(world: LearningWorld, episodes: tuple[Episode, ...]) -> Hindsight | None:
    """None if neither the search nor any policy reached the targets."""
    found = searched(world)
    ways = [(e.seconds, float(e.examples), e.policy) for e in episodes if e.reached]
    if found is not None:
        ways.append((*found, "search"))
    if world.reference:
        ways.append((*_reference(world), "reference"))
    if not ways:
        return None
    seconds, _, by = min(ways)
    return Hindsight(seconds, max(1.0, min(examples for _, examples, _ in ways)), by)


def _reference(world: LearningWorld) -> tuple[float, float]:
    ground = Noiseless(world)
    now = ground.start()
    for step in world.reference:
        now = ground.visit(now, np.array([step.site]), np.array([float(step.examples)]))
    return float(now.seconds[0]), float(now.examples[0])


def searched(world: LearningWorld) -> tuple[float, float] | None:
    """Seconds and examples of the fastest route that the beam finds."""
    ground = Noiseless(world)
    beam = ground.start()
    best: tuple[float, float] | None = None
    sites = _promising(ground)
    for _ in range(_DEPTH):
        children = _expanded(ground, beam, sites)
        if not len(children.at):
            break
        values = ground.values(children)
        holds = (values >= ground.targets).all(axis=1)
        if holds.any():
            row = int(np.where(holds, children.seconds, np.inf).argmin())
            way = (float(children.seconds[row]), float(children.examples[row]))
            best = way if best is None or way < best else best
        open_ = ~holds & (children.seconds < (best[0] if best else np.inf))
        rows = np.flatnonzero(open_)
        if not len(rows):
            break
        beam = children.take(_kept(ground, children, values, rows))
    return best


def _expanded(ground: Noiseless, beam: Travellers, sites: Indices) -> Travellers:
    records = np.array([float(ground.world.sites[int(k)].node.datasets[0].samples) for k in sites])
    amounts = np.array([[*_AMOUNTS, records[k], 2.0 * records[k]] for k in range(len(sites))])
    rows = np.repeat(np.arange(len(beam.at)), amounts.size)
    site = np.tile(np.repeat(sites, amounts.shape[1]), len(beam.at))
    examples = np.maximum(1.0, np.tile(amounts.ravel(), len(beam.at)))
    after = ground.visit(beam.take(rows), site, examples)
    return after.take(after.alive)


def _kept(ground: Noiseless, children: Travellers, values: Floats, rows: Indices) -> Indices:
    """Keep children by their shortfall, and by the extrapolated time to the targets."""
    start = ground.values(ground.start())[0]
    wanted = np.maximum(ground.targets - start, 1e-6)
    missing = (np.maximum(0.0, ground.targets - values[rows]) / wanted).sum(axis=1)
    worst = (np.maximum(0.0, ground.targets - values[rows]) / wanted).max(axis=1)
    closed = np.maximum(1e-3, len(start) - missing)
    rest_s = children.seconds[rows] * missing / closed
    by_time = children.seconds[rows] + rest_s
    by_worst = children.seconds[rows] / np.maximum(1e-3, 1.0 - worst)
    chosen: list[int] = []
    for order in (by_time, by_worst, missing):
        chosen.extend(int(k) for k in rows[np.argsort(order, kind="stable")[: _WIDTH // 3]])
    return np.array(sorted(set(chosen)), dtype=np.int64)


def _promising(ground: Noiseless) -> Indices:
    """Sites by what one visit gains, and gains per second, in turn per objective."""
    count = len(ground.world.sites)
    everybody = np.arange(count)[ground.admitted]
    if len(everybody) <= _SITES:
        return everybody
    start = ground.start()
    fresh = start.take(np.zeros(len(everybody), dtype=np.int64))
    records = np.array(
        [
            float(min(2000, max(1, ground.world.sites[int(k)].node.datasets[0].samples)))
            for k in everybody
        ]
    )
    after = ground.visit(fresh, everybody, records)
    gains = ground.values(after) - ground.values(start)
    chosen: dict[int, None] = {}
    orders = [*(-gains.T), *(-(gains / after.seconds[:, None]).T)]
    ranked = [np.argsort(order, kind="stable") for order in orders]
    for place in range(len(everybody)):
        for order in ranked:
            if len(chosen) < _SITES:
                chosen[int(everybody[order[place]])] = None
    return np.array(sorted(chosen))
