"""Real training beyond what is recorded, for families where a visit takes some milliseconds."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.worlds.files import load
from benchmarks.worlds.recorder import Recorder, repeatable
from benchmarks.worlds.tables import TABLES, table_cases
from daitn.sim.learning.replay import Merger, Trainer

__all__ = ["trainer"]


def trainer(family: str, split: str) -> tuple[Trainer, Merger] | None:
    """Trains and measures models of a table's split along any route, and merges them; none for
    other families."""
    if family not in TABLES:
        return None
    recorder = _recorders(family)[split]
    return recorder.node, recorder.merged


@cache
def _recorders(family: str) -> dict[str, Recorder]:
    """Of this process alone, with a folder of its own."""
    repeatable()
    folder = Path(tempfile.mkdtemp(prefix="daitn-worlds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    known = {one.split.split: dict(one.nodes) for one in load(family).splits}
    return {
        case.name: Recorder(case, folder / "models", known.get(case.name, {}))
        for case in table_cases(family, folder / "data")
    }
