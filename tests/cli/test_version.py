from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_failure(closed: str, tmp_path: Path) -> None:
    """As a service manager or a shell may start it; libuv, for one, aborts."""
    lost = str(tmp_path / "node.yaml")
    for arguments, code in ((["--version"], 0), (["node", "-c", lost], 2)):
        command = shlex.join([sys.executable, "-m", "daitn", *arguments])
        ended = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        if code and "2>" not in closed:
            assert "there is no node file" in ended.stderr


def test_the_changelog_knows_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert daitn.__version__ in headings
