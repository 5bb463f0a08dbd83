"""Recipes of the tests, installed where nodes and their workers look, as pip would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["installed_talker"]


@contextmanager
def installed_talker(folder: Path) -> Iterator[None]:
    """Have the recipe `talker` installed, and beside it `broken`, which cannot be imported."""
    info = folder / "talker-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("talker.py"), folder)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: talker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[daitn.recipes]\ntalker = talker:Talker\nbroken = no_such_module:Nothing\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(folder)
        yield
