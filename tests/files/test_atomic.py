"""Files that many write at once: each write is whole, and none fails for the others."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daitn.files.atomic import PARTIAL, replace_file

_WRITER = """
import sys
from pathlib import Path
from daitn.files.atomic import replace_file
path, mark = Path(sys.argv[1]), sys.argv[2].encode()
sys.stdin.readline()
for _ in range(50):
    replace_file(path, mark * 5000, private=True)
    found = path.read_bytes()
    assert len(found) == 5000 and len(set(found)) == 1, found[:20]
"""


def test_processes_may_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "membership.pem"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), mark], stdin=subprocess.PIPE, text=True
        )
        for mark in "abcd"
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(120) for writer in writers] == [0] * 4
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path, failed = tmp_path / "roster", list[BaseException]()

    def write(mark: bytes) -> None:
        try:
            for _ in range(100):
                replace_file(path, mark * 3000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(mark,)) for mark in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set(path.read_bytes())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_is_written_over_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    leftover = tmp_path / f"key{PARTIAL}"
    leftover.write_bytes(b"x" * 100)
    leftover.chmod(0o644)
    replace_file(path, b"short", private=True)
    assert path.read_bytes() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not leftover.exists()


def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    (tmp_path / f"key{PARTIAL}").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        replace_file(tmp_path / "key", b"new", private=True)
    assert target.read_bytes() == b"mine"
