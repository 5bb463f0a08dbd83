"""One simulated network with an intent, and what is hidden from its planner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from immutables import Map

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import WorkNeeds
from daitn.sim.learning.learner import Examined, Learner

__all__ = [
    "BEGIN_S",
    "DATASET",
    "GroundSite",
    "GroundVerifier",
    "LearningWorld",
    "WorldStep",
    "link_bps",
]

BEGIN_S = 1_000_000.0
"""Start of every episode, on the virtual clock."""
DATASET = "pairs"
"""Every site of a simulated network has one data set with this name."""
_LIGHT_S = 0.1
"""Round-trip time between two corners of the unit square."""


@dataclass(frozen=True)
class GroundSite:
    """A site as it really is; `node` is its published descriptor."""

    name: SiteId
    node: NodeDescriptor
    example_s: float
    """Seconds per training example."""
    overhead_s: float
    """Seconds for starting, loading and storing at each visit."""
    access_bps: float
    """Bytes per second of its own line."""
    at: tuple[float, float]
    """In the unit square; distance is delay."""
    away: tuple[tuple[float, float], ...] = ()
    """Intervals (from, until) in seconds after the beginning."""
    hangs: bool = False
    """Visits never end."""
    revisions: tuple[tuple[float, NodeDescriptor], ...] = ()
    """Later descriptors, each with the seconds after the beginning when it is published."""

    def is_present(self, after_s: float) -> bool:
        return not any(begin <= after_s < end for begin, end in self.away)

    def leaves_within(self, begin_s: float, end_s: float) -> float | None:
        """When it first leaves between two times (seconds after the beginning), if it does."""
        return min((left for left, _ in self.away if begin_s < left <= end_s), default=None)

    def node_at(self, after_s: float) -> NodeDescriptor:
        known = [node for at_s, node in self.revisions if at_s <= after_s]
        return known[-1] if known else self.node


@dataclass(frozen=True)
class GroundVerifier:
    """A verification unit."""

    name: SiteId
    node: NodeDescriptor
    item_s: float
    """Seconds per test item."""
    access_bps: float
    at: tuple[float, float]


@dataclass(frozen=True)
class WorldStep:
    """One visit of a route in the noiseless world."""

    site: int
    examples: int


@dataclass(frozen=True)
class LearningWorld:
    """Immutable; events follow from its seed and the policy's choices."""

    family: str
    seed: int
    intent: TrainingIntent
    needs: WorkNeeds
    sites: tuple[GroundSite, ...]
    """The learner's data sets, in its order."""
    verifiers: tuple[GroundVerifier, ...]
    tests: tuple[Examined, ...]
    """One per objective, in the intent's order."""
    learner: Learner
    measured_before: bool = False
    """Whether the learner's values are already measurements, with the noise of their tests."""
    link_factor: float = 1.0
    """Factor on the speed of links relative to the sites' own lines."""
    measured_links: int = 60
    """In networks up to this size, all links are measured."""
    honest: frozenset[SiteId] = frozenset()
    """Sites with true descriptors; all of them if nobody lies."""
    lies: Mapping[SiteId, float] = Map()
    """Amounts that lying verifiers add to each value that they measure."""
    reference: tuple[WorldStep, ...] = ()
    """A route over honest sites only, with which all targets hold in the noiseless world within the
    budget. Empty means none is known."""
    reachable: frozenset[str] = frozenset()
    """Objectives whose targets an honest route's models are known to reach, all at once."""
    split: str = ""
    """The recorded split that is its truth; empty if the truth is synthetic."""
    luck: int = 0
    """Another number changes all random outcomes; the network, the data and the intent stay the
    same."""

    def rng(self, *event: int) -> np.random.Generator:
        """The luck of one event of an episode."""
        return np.random.default_rng((self.seed, *event, *((self.luck,) if self.luck else ())))

    @cached_property
    def index(self) -> dict[SiteId, int]:
        return {site.name: number for number, site in enumerate(self.sites)}

    @cached_property
    def ends(self) -> dict[SiteId, GroundSite | GroundVerifier]:
        everybody: Sequence[GroundSite | GroundVerifier] = (*self.sites, *self.verifiers)
        return {end.name: end for end in everybody}

    def transfer_s(self, source: SiteId, target: SiteId, together: int = 1) -> float:
        """Seconds to move the model from one site to another; 0 if it is there.

        `together`: how many share the source's line.
        """
        if source == target:
            return 0.0
        rtt_s, throughput_bps = self.link(source, target)
        share_bps = self.ends[source].access_bps * self.link_factor / together
        throughput_bps = min(throughput_bps, share_bps)
        return rtt_s + self.needs.size_bytes / throughput_bps

    def link(self, source: SiteId, target: SiteId) -> tuple[float, float]:
        """True round-trip time in seconds, and bytes per second."""
        one, other = self.ends[source], self.ends[target]
        rtt_s = 0.002 + _LIGHT_S * math.dist(one.at, other.at)
        return rtt_s, link_bps(one.access_bps, other.access_bps) * self.link_factor

    def verify_s(self, verifier: SiteId, objective: int) -> float:
        """Seconds of measuring only."""
        end = self.ends[verifier]
        assert isinstance(end, GroundVerifier)
        return end.item_s * self.tests[objective].total

    @cached_property
    def changes_s(self) -> tuple[float, ...]:
        """Seconds after the beginning at which the topology changes, ascending, from 0."""
        times = {0.0}
        for site in self.sites:
            times.update(at_s for at_s, _ in site.revisions)
            for begin, end in site.away:
                times.update((max(0.0, begin), end))
        return tuple(sorted(at_s for at_s in times if math.isfinite(at_s)))


def link_bps(one_bps: float, other_bps: float) -> float:
    """The slower of two lines limits the link."""
    return min(one_bps, other_bps)
