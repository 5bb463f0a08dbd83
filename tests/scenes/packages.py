"""Packages that tests need in versions, or at sizes, that the project does not install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["installed"]


def installed(folder: Path, *packages: str) -> None:
    """Install packages into a folder of their own, with what they need; skips the test where no
    package index can be reached."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run(
        [*pip, "--target", str(folder), *packages], capture_output=True, text=True, check=False
    )
    if made.returncode and not folder.joinpath("bin").exists():
        if any(word in made.stderr for word in ("Connection", "connection", "resolve host")):
            pytest.skip(f"no package index can be reached: {made.stderr[-300:]}")
        raise AssertionError(made.stderr)
