"""Worlds whose truth is a recording of real training; only the network around it is drawn.

Seeds for tuning see the splits that a recording keeps for fitting; seeds for reporting see the
splits that it holds out as a whole, where it has any.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache

import numpy as np

from daitn.objects.identifiers import SiteId
from daitn.sim.learning.families.draft import log_uniform
from daitn.sim.learning.families.nodes import data_node, needs, verifier_node
from daitn.sim.learning.families.seeds import is_validation
from daitn.sim.learning.families.targets import Terms, provisional, settled
from daitn.sim.learning.recordings import Recording, Split, TrainedSplit
from daitn.sim.learning.replay import Replay, replay
from daitn.sim.learning.world import GroundSite, LearningWorld, Verifier

__all__ = ["recorded_family", "repeats_of", "splits_for"]

_BROAD = "broad"
"""The objective that every split has; one of its experts stands beside it."""


def recorded_family(recording: Recording) -> Callable[[int], LearningWorld]:
    """Worlds on the splits of one recording, by seed."""

    @cache
    def learner(name: str, expert: str) -> Replay:
        split = next(trained for trained in recording.splits if trained.split.split == name)
        repeats = (other.asking(expert) for other in repeats_of(recording, split))
        return replay(split.asking(expert), repeats)

    def world(seed: int) -> LearningWorld:
        family = recording.header.family
        rng = np.random.default_rng((seed, zlib.crc32(family.encode())))
        splits = splits_for(recording, is_validation(seed))
        split = splits[int(rng.integers(len(splits)))].split
        experts = [name for name in split.targets if name != _BROAD]
        expert = experts[int(rng.integers(len(experts)))]
        return _world(family, seed, rng, learner(split.split, expert))

    return world


def splits_for(recording: Recording, validation: bool) -> tuple[TrainedSplit, ...]:
    """Splits that are no repeats: those held out as a whole for validation, else the others."""
    first = [trained for trained in recording.splits if not trained.split.repeats]
    held = [t for t in first if all(node.held_out for node in t.nodes.values())]
    kept = [trained for trained in first if trained not in held]
    return tuple((held or kept) if validation else (kept or held))


def repeats_of(recording: Recording, trained: TrainedSplit) -> tuple[TrainedSplit, ...]:
    """The same routes with other seeds."""
    name = trained.split.split
    return tuple(other for other in recording.splits if other.split.repeats == name)


def _world(family: str, seed: int, rng: np.random.Generator, learner: Replay) -> LearningWorld:
    split = learner.split
    flops = split.flops_per_example
    size_bytes = int(log_uniform(rng, 1e5, 1e8))
    records = sum(site.samples for site in split.sites)
    example_s = log_uniform(rng, 5.0, 300.0) / records
    overhead_s = log_uniform(rng, 0.2, 5.0)
    access_bps = log_uniform(rng, 2e6, 1e8)
    priced = rng.random() < 0.3
    names = [SiteId(site.site) for site in split.sites]
    sites = []
    for name, site in zip(names, split.sites, strict=True):
        own_s = example_s * float(rng.lognormal(0.0, 0.5))
        price = round(log_uniform(rng, 0.05, 2.0), 3) if priced and rng.random() < 0.7 else 0.0
        node = data_node(
            name,
            topics=site.topics,
            labels=site.labels,
            speed_flops=flops / own_s * float(rng.lognormal(0.0, 0.25)),
            quality=site.quality,
            price_usd_per_1k=price,
        )
        sites.append(
            GroundSite(
                name=name,
                node=node,
                example_s=own_s,
                overhead_s=overhead_s * float(rng.lognormal(0.0, 0.3)),
                access_bps=access_bps * float(rng.lognormal(0.0, 0.5)),
                at=(float(rng.random()), float(rng.random())),
            )
        )
    unit = SiteId("unit0")
    published = [test.labels for test in split.tests]
    verifier = Verifier(
        name=unit,
        node=verifier_node(unit, "US", learner.tests, published),
        item_s=0.3 * example_s,
        access_bps=3e7,
        at=(0.5, 0.5),
    )
    honest = frozenset(name for name, site in zip(names, split.sites, strict=True) if not site.flaw)
    world = LearningWorld(
        family=family,
        seed=seed,
        intent=provisional(learner.tests, *_roots(split)),
        needs=needs(flops, size_bytes),
        sites=tuple(sites),
        verifiers=(verifier,),
        tests=learner.tests,
        learner=learner,
        measured_before=True,
        honest=honest or frozenset(names),
        split=split.split,
    )
    usd_slack = (1.2, 2.5) if priced else None
    return settled(world, Terms(usd_slack=usd_slack, reference_examples=(150, 500)))


def _roots(split: Split) -> tuple[str, ...]:
    """The first step of every topic."""
    return tuple(sorted({topic.split("/")[0] for site in split.sites for topic in site.topics}))
