"""Real training beyond what is recorded, for families where a visit takes some milliseconds."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.worlds.files import load
from benchmarks.worlds.many import TrainedInMemory
from benchmarks.worlds.recorder import Recorder, repeatable
from benchmarks.worlds.tables import TABLES, table_cases
from daitn.sim.learning.replay import Merger, Replay, Trainer
from daitn.sim.learning.world import LearningWorld

__all__ = ["again", "trainer"]

_LUCK = 1_000
"""Added to the seed of a split for each other luck: far from those of recorded repetitions."""


def trainer(family: str, split: str) -> tuple[Trainer, Merger] | None:
    """Trains and measures models of a table's split along any route, and merges them; none for
    other families."""
    if family not in TABLES:
        return None
    recorder = _recorders(family)[split]
    return recorder.node, recorder.merged


def again(world: LearningWorld, luck: int = 1) -> LearningWorld:
    """The same world with other luck: other seeds of training and of measuring."""
    learner = world.learner
    if isinstance(learner, Replay):
        family = next((name for name in TABLES if world.split.startswith(f"{name} ")), None)
        other = _recorders(family, luck)[world.split] if family else None
        learner = learner.again(other.node, other.merged) if other else learner.again(None)
    elif isinstance(learner, TrainedInMemory):
        learner = learner.again()
    return replace(world, learner=learner, luck=luck)


@cache
def _recorders(family: str, luck: int = 0) -> dict[str, Recorder]:
    """Of this process alone, with a folder of its own."""
    repeatable()
    folder = Path(tempfile.mkdtemp(prefix="daitn-worlds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    splits = () if luck else load(family).splits
    known = {one.split.split: dict(one.nodes) for one in splits}
    cases = (
        replace(case, seed=case.seed + _LUCK * luck)
        for case in table_cases(family, folder / "data")
    )
    return {
        case.name: Recorder(case, folder / "models", known.get(case.name, {})) for case in cases
    }
