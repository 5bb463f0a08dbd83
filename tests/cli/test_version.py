from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import daitn
from tests.scenes.command_line import daitn as command

ROOT = Path(__file__).parents[2]


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    place = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{daitn.__version__}"' in place.read_text()


def test_the_command_line_says_the_version() -> None:
    for words in ("version", "--version"):
        ended = command(words)
        assert (ended.returncode, ended.stdout) == (0, f"{daitn.__version__}\n")


def test_the_package_runs_as_the_command_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "daitn", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"{daitn.__version__}\n"


def test_the_changelog_knows_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert daitn.__version__ in headings
