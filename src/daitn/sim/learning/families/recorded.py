"""Worlds whose truth is a recording of real training; only the network around it is drawn.

Seeds for tuning use the splits that a recording keeps for fitting; seeds for reporting use the
splits that it holds out as a whole, if there are any.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from daitn.sim.learning.families.conditions import Conditions, plain, stressed
from daitn.sim.learning.families.nodes import needs
from daitn.sim.learning.families.seeds import is_validation
from daitn.sim.learning.families.targets import provisional, settled
from daitn.sim.learning.recordings import Recording, Split, TrainedSplit
from daitn.sim.learning.replay import Merger, Replay, Trainer, replay
from daitn.sim.learning.world import LearningWorld

__all__ = [
    "STRESSED",
    "Trainers",
    "judgeable",
    "recorded_family",
    "repeats_of",
    "splits_for",
    "stressed_family",
]

STRESSED = "recorded, stressed"
"""The family of all recordings together, in stressful networks."""
_LEAST_NODES = 100
"""With fewer recorded models, a surrogate cannot learn how a split teaches."""
_BROAD = "broad"
"""The objective that every split has; it is combined with one of the split's experts."""


Trainers = Callable[[str, str], tuple[Trainer, Merger] | None]
"""Returns what trains and merges unrecorded models of a family's split, if anything does."""


def _nobody(family: str, split: str) -> None:
    return None


def recorded_family(
    recording: Recording, trainers: Trainers = _nobody
) -> Callable[[int], LearningWorld]:
    """Worlds on the splits of one recording, by seed."""
    return _family(recording.header.family, (recording,), plain, trainers)


def stressed_family(
    recordings: Sequence[Recording], trainers: Trainers = _nobody
) -> Callable[[int], LearningWorld]:
    """Worlds on the splits of all recordings, in stressful networks, by seed."""
    return _family(STRESSED, tuple(recordings), stressed, trainers)


def splits_for(recording: Recording, validation: bool) -> tuple[TrainedSplit, ...]:
    """Splits that are not repeats: for validation those held out as a whole, else the others."""
    first = judgeable(recording)
    held = [t for t in first if all(node.held_out for node in t.nodes.values())]
    kept = [trained for trained in first if trained not in held]
    return tuple((held or kept) if validation else (kept or held))


def judgeable(recording: Recording) -> list[TrainedSplit]:
    """Splits that are not repeats, with enough recorded models to represent the rest."""
    return [
        trained
        for trained in recording.splits
        if not trained.split.repeats and len(trained.nodes) >= _LEAST_NODES
    ]


def repeats_of(recording: Recording, trained: TrainedSplit) -> tuple[TrainedSplit, ...]:
    """The same routes with other seeds."""
    name = trained.split.split
    return tuple(other for other in recording.splits if other.split.repeats == name)


def _family(
    name: str,
    recordings: tuple[Recording, ...],
    conditions: Callable[[np.random.Generator, Split], Conditions],
    trainers: Trainers,
) -> Callable[[int], LearningWorld]:
    @cache
    def learner(number: int, place: int, expert: str) -> Replay:
        trained = recordings[number].splits[place]
        repeats = (other.asking(expert) for other in repeats_of(recordings[number], trained))
        real = trainers(recordings[number].header.family, trained.split.split)
        trainer, merger = real or (None, None)
        return replay(trained.asking(expert), repeats, trainer=trainer, merger=merger)

    def world(seed: int) -> LearningWorld:
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        number = int(rng.integers(len(recordings)))
        splits = splits_for(recordings[number], is_validation(seed))
        trained = splits[int(rng.integers(len(splits)))]
        experts = [expert for expert in trained.split.targets if expert != _BROAD]
        expert = experts[int(rng.integers(len(experts)))]
        place = recordings[number].splits.index(trained)
        truth = learner(number, place, expert)
        return _world(name, seed, truth, conditions(rng, truth.split))

    return world


def _world(family: str, seed: int, learner: Replay, conditions: Conditions) -> LearningWorld:
    split = learner.split
    names = [site.name for site in conditions.sites]
    honest = frozenset(name for name, site in zip(names, split.sites, strict=True) if not site.flaw)
    world = LearningWorld(
        family=family,
        seed=seed,
        intent=provisional(learner.tests, *_roots(split)),
        needs=needs(split.flops_per_example, conditions.size_bytes),
        sites=conditions.sites,
        verifiers=(conditions.verifier(learner.tests, [test.labels for test in split.tests]),),
        tests=learner.tests,
        learner=learner,
        measured_before=True,
        honest=honest or frozenset(names),
        split=split.split,
    )
    return settled(world, conditions.terms)


def _roots(split: Split) -> tuple[str, ...]:
    """The first path component of every topic."""
    return tuple(sorted({topic.split("/")[0] for site in split.sites for topic in site.topics}))
