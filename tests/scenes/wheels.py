"""Wheels of this project, of what is checked out and of earlier commits; environments of them."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

__all__ = ["ROOT", "archived", "environment_with", "wheel_of"]

ROOT = Path(__file__).parents[2]
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


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
    """Build the wheel of a source tree. Nothing is downloaded: the build's tools are those of the
    tests' environment. Raises `AssertionError` with what the build said."""
    command = [*_PIP, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    made = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("daitn-*.whl")
    return wheel


def environment_with(folder: Path, *arguments: str) -> Path:
    """A new environment in which all packages of the tests' environment are, and what these
    arguments of `pip install` name in place of theirs; returns the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = folder / "bin"
    command = [*_PIP, "--python", str(programs / "python"), "install", "--quiet", "--no-deps"]
    command += ["--ignore-installed", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, *arguments], check=True)
    return programs
