"""The demo deletes what an earlier demo left, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from daitn.cli.demo import command
from daitn.cli.demo.command import demo_folder
from daitn.objects.errors import InvalidInput
from tests.scenes.command_line import daitn


def listed(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("through_link", [False, True])
def test_a_folder_with_other_files_is_refused_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through_link: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (kept / "deep" / "thesis.txt").write_text("precious")
    (tmp_path / "link").symlink_to(kept)
    ended = daitn("demo", "-o", "link" if through_link else "kept")
    assert ended.returncode == 2
    assert "error --out: " in ended.stderr
    assert "fix" in ended.stderr
    assert listed(kept) == {"deep/thesis.txt": b"precious"}


def test_a_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    assert daitn("demo", "-o", str(tmp_path / "file")).returncode == 2
    assert listed(tmp_path) == {"file": b"precious"}


def test_an_earlier_demo_s_folder_is_emptied_and_links_in_it_are_not_followed(
    tmp_path: Path,
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    demo_folder(out)
    elsewhere.mkdir()
    (elsewhere / "file").write_text("precious")
    (out / "state").mkdir()
    (out / "state" / "old").write_text("old")
    (out / "report.json").write_text("old")
    (out / "link").symlink_to(elsewhere)
    demo_folder(out)
    assert [path.name for path in out.iterdir()] == [command.MARK]
    assert listed(elsewhere) == {"file": b"precious"}


def test_an_empty_or_new_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new" / "one"):
        demo_folder(out)
        assert (out / command.MARK).is_file()


def test_nothing_is_deleted_before_the_folder_is_known_to_be_a_demo_s(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(InvalidInput):
        demo_folder(tmp_path)
    assert listed(tmp_path) == {"a": b"precious"}
