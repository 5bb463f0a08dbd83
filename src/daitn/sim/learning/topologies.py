"""A planner's view of a world: its DRRT at any time, cut for the world's intent."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator

from immutables import Map

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.sim.learning.world import BEGIN_S, LearningWorld
from daitn.topology.relevance import relevant_to
from daitn.topology.snapshot import Drrt, MsDrrt, SiteState

__all__ = ["Topologies"]

_READ_AT_S = BEGIN_S + 1e9
"""Links are measured continually, so readings never age: their timestamp is after the end of every
episode, instead of being renewed at each question."""
_READING_ERROR = 0.1
"""Standard deviation of the logarithm of a measured throughput."""
_NEIGHBOURS = 6
"""Links that each site of a large network has measured, besides those to verifiers."""


class Topologies:
    """Snapshots of one world. Created once per change and shared by all episodes in that world."""

    def __init__(self, world: LearningWorld) -> None:
        self._world = world
        self._links = _links(world)
        self._known: dict[int, MsDrrt] = {}

    def at(self, now_s: float) -> MsDrrt:
        """The MS-DRRT of the intent as known at `now_s`."""
        epoch = bisect.bisect_right(self._world.changes_s, now_s - BEGIN_S) - 1
        if epoch not in self._known:
            self._known[epoch] = self._cut(max(epoch, 0))
        return self._known[epoch]

    def next_change_s(self, now_s: float) -> float | None:
        """When the topology changes next."""
        changes_s = self._world.changes_s
        after = bisect.bisect_right(changes_s, now_s - BEGIN_S)
        return BEGIN_S + changes_s[after] if after < len(changes_s) else None

    def _cut(self, epoch: int) -> MsDrrt:
        world = self._world
        after_s = world.changes_s[epoch]
        states = {}
        for site in world.sites:
            node, alive = site.node_at(after_s), site.is_present(after_s)
            states[site.name] = SiteState(descriptor=node, alive=alive, changed_at_s=BEGIN_S)
        for unit in world.verifiers:
            states[unit.name] = SiteState(descriptor=unit.node, alive=True, changed_at_s=BEGIN_S)
        at_s = BEGIN_S + after_s
        drrt = Drrt(version=epoch + 1, at_s=at_s, sites=Map(states), links=self._links)
        return relevant_to(drrt, world.intent, world.needs, now_s=at_s)


def _links(world: LearningWorld) -> Map[SiteId, Map[SiteId, LinkReading]]:
    rng = random.Random(f"links.{world.seed}")  # noqa: S311 - replayable, keeps no secret
    return Map(
        {
            source: Map({target: _reading(world, source, target, rng) for target in targets})
            for source, targets in _measured(world, rng)
        }
    )


def _measured(world: LearningWorld, rng: random.Random) -> Iterator[tuple[SiteId, list[SiteId]]]:
    everybody = list(world.ends)
    if len(everybody) <= world.measured_links:
        for source in everybody:
            yield source, [target for target in everybody if target != source]
        return
    units = [unit.name for unit in world.verifiers]
    for source in everybody:
        near = rng.sample(everybody, _NEIGHBOURS)
        yield source, sorted({*near, *units} - {source})


def _reading(
    world: LearningWorld, source: SiteId, target: SiteId, rng: random.Random
) -> LinkReading:
    rtt_s, throughput_bps = world.link(source, target)
    return LinkReading(
        source=source,
        target=target,
        rtt_s=Reading(rtt_s, _READ_AT_S, source),
        throughput_bps=Reading(
            throughput_bps * rng.lognormvariate(0.0, _READING_ERROR), _READ_AT_S, source
        ),
    )
