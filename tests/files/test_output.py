"""What a command writes goes where the user said, and destroys nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daitn.files.output import write_output
from daitn.objects.errors import InvalidInput
from tests.scenes.command_line import daitn


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Another `/dev/null`, for users who could destroy the machine's own."""
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.stat(os.devnull).st_rdev)
    except PermissionError:
        return Path(os.devnull)
    return device


def test_a_device_is_written_to_and_stays(device: Path) -> None:
    before = device.stat()
    for private in (False, True):
        write_output(device, b"secret", private=private)
    check_same(device, before)


def check_same(device: Path, before: os.stat_result) -> None:
    after = device.stat()
    for field in ("st_ino", "st_mode", "st_rdev"):
        assert getattr(after, field) == getattr(before, field)


def test_a_pipe_gets_all_of_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, b"a report")
    reader.join()
    assert read == [b"a report"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("into_file", [False, True])
def test_standard_output_is_written_to(tmp_path: Path, into_file: bool) -> None:
    program = (
        "from pathlib import Path; from daitn.files.output import write_output;"
        "write_output(Path('/dev/stdout'), b'a report'); print(', told', end='')"
    )
    command = [sys.executable, "-c", program]
    if not into_file:
        ended = subprocess.run(command, capture_output=True, check=True)
        assert ended.stdout == b"a report, told"
        return
    with (tmp_path / "log").open("ab") as file:
        subprocess.run(command, stdout=file, check=True)
    assert (tmp_path / "log").read_bytes().endswith(b", told")
    assert Path("/dev/stdout").is_symlink()


def test_a_link_stays_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "there" / "report.html")
    for text in (b"one", b"two"):
        write_output(link, text)
        assert link.is_symlink()
        assert (tmp_path / "there" / "report.html").read_bytes() == text


def test_what_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidInput) as refused:
            write_output(path, b"", "--output")
        assert refused.value.field == "--output"
        assert str(path) in refused.value.problem


def test_an_invitation_into_a_device_leaves_it(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAITN_NETWORK", "network")
    assert daitn("network", "init", "network", "--name", "clinics").returncode == 0
    before = device.stat()
    ended = daitn("network", "invite", "--owner-name", "ann", "-o", str(device))
    assert ended.returncode == 0, ended.stderr
    check_same(device, before)
