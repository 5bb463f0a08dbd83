"""A state folder belongs to one process, and nothing of anybody else's in it is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from daitn.files.lock import FolderLock
from daitn.files.state_folder import NodeState
from daitn.objects.errors import InvalidInput


@pytest.mark.parametrize("name", [NodeState.SCRATCH, NodeState.SERVING])
def test_a_folder_with_somebody_else_s_files_is_refused(tmp_path: Path, name: str) -> None:
    """As with `state: .` in a folder of other work."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("precious")
    with pytest.raises(InvalidInput) as refused:
        FolderLock(tmp_path)
    assert refused.value.field == "state"
    assert str(tmp_path / name) in refused.value.problem
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_its_own_files_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    FolderLock(tmp_path).release()
    (tmp_path / NodeState.SCRATCH).mkdir()
    (tmp_path / NodeState.SCRATCH / "left").write_text("")
    FolderLock(tmp_path).release()
