"""Recipes of the tests, installed where nodes and their workers look, as pip would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["installed_hostile", "installed_intruder", "installed_talker"]


@contextmanager
def installed_talker(folder: Path) -> Iterator[None]:
    """Have the recipe `talker` installed, and beside it `broken`, which cannot be imported."""
    with _installed(folder, "talker", talker="talker:Talker", broken="no_such_module:Nothing"):
        yield


@contextmanager
def installed_hostile(folder: Path) -> Iterator[None]:
    """Have the recipes of `hostile` installed, under their classes' names."""
    names = ("estimating", "dying", "telling", "unmade", "half", "gone", "harmless", "silent")
    targets = {name: f"hostile:{name.capitalize()}" for name in names}
    with _installed(folder, "hostile", **targets | {"gone": "hostile:gone"}):
        yield


@contextmanager
def installed_intruder(folder: Path) -> Iterator[None]:
    """Have the recipe `intruder` installed."""
    with _installed(folder, "intruder", intruder="intruder:Intruder"):
        yield


@contextmanager
def _installed(folder: Path, module: str, **recipes: str) -> Iterator[None]:
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name(f"{module}.py"), folder)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name} = {target}\n" for name, target in recipes.items()]
    (info / "entry_points.txt").write_text("".join(["[daitn.recipes]\n", *lines]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(folder)
        yield
