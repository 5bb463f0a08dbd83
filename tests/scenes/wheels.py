"""Wheels of this project, of what is checked out and of earlier commits."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

__all__ = ["ROOT", "archived", "wheel_of"]

ROOT = Path(__file__).parents[2]


def archived(commit: str, folder: Path) -> Path:
    """The files of a commit; skips the test in a checkout that does not have it."""
    git = ["git", "-C", str(ROOT), "archive", commit]
    archive = subprocess.run(git, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"there is no commit {commit} here: {archive.stderr.decode()[-200:]}")
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def wheel_of(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree; skips the test where the build's tools cannot be had."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    command = [*pip, "--no-deps", "--wheel-dir", str(folder), str(source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        if any(word in made.stderr for word in ("Connection", "connection", "resolve host")):
            pytest.skip(f"no package index can be reached: {made.stderr[-300:]}")
        raise AssertionError(made.stderr)
    (wheel,) = folder.glob("daitn-*.whl")
    return wheel
