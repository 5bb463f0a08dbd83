"""How commands end that cannot print, cannot write, or are interrupted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daitn.cli.session import ExitCode, ended
from daitn.files.atomic import replace_file
from daitn.files.output import write_output
from daitn.objects.errors import StorageFull
from tests.scenes.command_line import daitn

FULL = Path("/dev/full")
COMMAND = (sys.executable, "-m", "daitn")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("recipes: [any]\nowners: [any]\n")
    return path


def no_room(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("words", [("schema", "node"), ("policy", "check"), ("version",), ("-h",)])
def test_a_full_standard_output_is_one_error(words: tuple[str, ...], policy: Path) -> None:
    words = (*words, str(policy)) if words[0] == "policy" else words
    words = ("--help",) if words == ("-h",) else words
    with FULL.open("wb") as full:
        command = [*COMMAND, *words]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == ExitCode.OTHER
    assert ended.stderr.startswith("error")
    assert "No space left on device" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2


@pytest.mark.parametrize("words", [("schema", "node"), ("policy", "check"), ("version",)])
def test_output_that_nobody_reads_is_no_error(words: tuple[str, ...], policy: Path) -> None:
    words = (*words, str(policy)) if words[0] == "policy" else words
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (ExitCode.UNREAD, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert ended(BrokenPipeError(errno.EPIPE, "Broken pipe")) == ExitCode.BAD_INPUT
    assert "Broken pipe" in capfd.readouterr().err


def test_a_file_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_room)
    for words in (
        ("key", str(tmp_path / "clinics.key")),
        ("network", "init", str(tmp_path / "network"), "--name", "clinics"),
        ("data", "prepare", "-o", str(tmp_path / "data")),
    ):
        told = daitn(*words)
        assert told.returncode == ExitCode.OTHER, told.stderr
        assert told.stderr.startswith(f"error {tmp_path}")
        assert "No space left on device" in told.stderr
        assert "free space there" in told.stderr


def test_so_is_what_an_option_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageFull, match=r"report\.html cannot be written") as raised:
        write_output(tmp_path / "report.html", b"page")
    assert raised.value.field == "--out"
    assert "free space" in raised.value.fix


def test_a_failed_write_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space left") as raised:
        replace_file(tmp_path / "file", b"content")
    assert raised.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("words", [("version",), ("get", "nodes")])
def test_ctrl_c_while_the_command_is_imported_is_no_traceback(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join((str(tmp_path), *sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    told = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (ExitCode.INTERRUPTED, "interrupted\n")
