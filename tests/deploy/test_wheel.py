"""What `pip wheel .` and an archive of the sources hold: everything, the dashboard too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until
from tests.scenes.wheels import ROOT, environment_with, wheel_of

SOURCE = ROOT / "src"
BUILD = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "src/daitn/__init__.py")
"""What a build needs."""


def packed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as files:
        return set(files.namelist())


def package_files() -> set[str]:
    """All that is in the package's folder, known to git or built."""
    return {
        str(path.relative_to(SOURCE))
        for path in (SOURCE / "daitn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A checkout, as small as may be, whose dashboard is not built."""
    folder = tmp_path / "checkout"
    for name in BUILD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_a_wheel_holds_the_whole_package_and_the_dashboard(wheel: Path) -> None:
    names = packed(wheel)
    assert package_files() <= names
    assert {"daitn/py.typed", "daitn/oam/static/index.html"} <= names
    for kind in (".js", ".js.br", ".css", ".css.gz"):
        assert any(re.fullmatch(rf"daitn/oam/static/assets/.+{re.escape(kind)}", n) for n in names)


def test_an_archive_of_the_sources_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("daitn-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert packed(wheel_of(unpacked, tmp_path / "wheels")) == packed(wheel)


def test_without_the_dashboard_no_wheel_is_built_and_it_is_said_what_to_do(
    unbuilt: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=r"dashboard is not built .*: run `make web` first"):
        wheel_of(unbuilt, tmp_path / "wheels")


def test_an_editable_installation_needs_no_dashboard(unbuilt: Path, tmp_path: Path) -> None:
    """`make` builds the dashboard with what it installs."""
    programs = environment_with(tmp_path / "venv", "--editable", str(unbuilt))
    asked = [str(programs / "python"), "-c", "import daitn; print(daitn.__file__)"]
    found = subprocess.check_output(asked, text=True, cwd=tmp_path, env=outside())
    assert found.strip() == str(unbuilt / "src/daitn/__init__.py")


def outside() -> dict[str, str]:
    """The environment of somebody who has no checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture
def dashboard(wheel: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a control centre that was installed from the wheel."""
    programs = environment_with(tmp_path / "venv", str(wheel))
    url = f"127.0.0.1:{free_port()}"
    (tmp_path / "center.yaml").write_text(
        f"insecure: true\nlisten: [tcp/127.0.0.1:0]\napi: {{listen: '{url}'}}\n"
    )
    command = [str(programs / "daitn"), "center", "-c", "center.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, env=outside()) as process:
        try:
            yield f"http://{url}"
        finally:
            process.terminate()


@pytest.mark.processes
def test_what_is_installed_from_a_wheel_serves_the_dashboard(dashboard: str) -> None:
    def page() -> str:
        try:
            with urllib.request.urlopen(dashboard) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            return ""

    wait_until(page)
    parts = re.findall(r'(?:src|href)="(/[^"]+)"', page())
    assert {Path(part).suffix for part in parts} >= {".js", ".css", ".svg"}
    for part in parts:
        with urllib.request.urlopen(dashboard + part) as answer:
            assert answer.read()
