"""What is long."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """To read these files takes a minute, of each of a run's processes."""
    return True if "not long" in config.option.markexpr else None
