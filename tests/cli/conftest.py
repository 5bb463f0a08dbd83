"""A model that was handed over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.handed import Handed


@pytest.fixture
async def handed(tmp_path: Path) -> Handed:
    """A stage whose owner has exported the model."""
    # Imported here, because most tests of the command line export nothing.
    from tests.cli.handed import Handed

    stage = Handed(tmp_path)
    await stage.export(tmp_path / "out")
    return stage


@pytest.fixture
def out(handed: Handed) -> Path:
    """What was exported."""
    return handed.folder / "out"
