"""What was kept is there after the power went: its bytes before its name, its name before all else.

A disk may lose, when the power goes, whatever nobody waited for. `Disk` follows what is waited for.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daitn.files.items import ItemStore
from daitn.files.lock import FolderLock
from daitn.identity.keys import SigningKey
from daitn.identity.sealing import ReceiverKey
from daitn.learning.corpora.records import QaPair, write_records
from daitn.node.agents.store import AgentStore
from daitn.node.incarnation import started_at_s
from daitn.node.training.work_log import LoggedWork, WorkLog
from daitn.objects.agents import Agent
from daitn.objects.identifiers import JobId, SiteId, VisitId
from daitn.objects.messages import DeployModel, VisitWork
from daitn.objects.models import ModelRef
from daitn.tools.membership import FileKeys
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.manifests import chunk_sizes
from tests.scenes.certificates import certified_member

SOURCE = Path(__file__).parents[2] / "src" / "daitn"
MAY_RENAME = {
    "files/atomic.py",
    "tools/mobility/disk.py",
    "cli/known_networks.py",
    "node/training/sums.py",
}
"""The second writes what others still have, and says so; the third renews links at each start; the
fourth waits for the folder before what it took away is in a sum."""


class Disk:
    """Follows which files have their bytes, and their names, on the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes_on_disk: set[Path] = set()
        self.names_on_disk: set[Path] = set()
        self.renamed: list[Path] = []
        fsync, replace, rename, mkdir = os.fsync, os.replace, os.rename, os.mkdir

        def synced(handle: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_dir():
                self.names_on_disk |= set(path.iterdir())
            else:
                self.bytes_on_disk.add(path)
            fsync(handle)

        def moved(move: Callable[..., None]) -> Callable[..., None]:
            def call(source: Path, target: Path) -> None:
                assert Path(source) in self.bytes_on_disk, f"{target} may come back empty"
                move(source, target)
                self.names_on_disk.discard(Path(target))
                self.renamed.append(Path(target))

            return call

        def made(path: Path, mode: int = 0o777) -> None:
            mkdir(path, mode)
            self.renamed.append(Path(path))

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", moved(replace))
        monkeypatch.setattr(os, "rename", moved(rename))
        monkeypatch.setattr(os, "mkdir", made)

    def check(self) -> None:
        """Everything is under the name that it was given."""
        assert self.renamed
        lost = [path for path in self.renamed if path not in self.names_on_disk]
        assert not lost, f"a power cut takes {lost} away"


def work() -> VisitWork:
    return VisitWork(
        visit=VisitId("qa-1.1"), job=JobId("qa-1"), recipe="classifier", config={}, seed=1,
        owner="ann", dataset="table", examples=1, model=None, previous=(),
    )  # fmt: skip


def desired() -> DeployModel:
    model = ModelRef(manifest="0" * 64, size_bytes=1, holders=())  # type: ignore[arg-type]
    return DeployModel(name="m", owner="ann", recipe="classifier", config={}, model=model)


PAIR = QaPair(topic="t", label="l", question="q", answer="a")
KEEPS: dict[str, Callable[[Path], object]] = {
    "accepted work": lambda at: WorkLog(at / "new" / "work").put(LoggedWork(work=work())),
    "an agent": lambda at: AgentStore(at / "new" / "home").put(
        Agent(job=JobId("qa-1"), home=SiteId("home"), epoch=1, facts=())
    ),
    "a desired model": lambda at: ItemStore(at / "new", DeployModel).put("m", desired()),
    "keys of others": lambda at: FileKeys(at / "known").put(SiteId("ghr"), "key"),
    "its own key": lambda at: SigningKey.at(at / "new" / "key"),
    "a class's key": lambda at: ReceiverKey.at(at / "new" / "class"),
    "a certificate": lambda at: certified_member(at / "new" / "a", at / "authority"),
    "its start": lambda at: started_at_s(at, 1.0),
    "records": lambda at: write_records(at / "new" / "qa.jsonl", [PAIR]),
    "its state folder": lambda at: FolderLock(at / "new" / "state").release(),
}


@pytest.mark.parametrize("what", KEEPS)
def test_what_is_kept_outlives_a_power_cut(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    KEEPS[what](tmp_path)
    disk.check()


def test_a_model_that_exists_nowhere_else_outlives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "model"
    made.mkdir()
    (made / "weights").write_bytes(bytes(range(256)) * 9000)
    replace = os.replace
    disk = Disk(monkeypatch)
    monkeypatch.setattr(os, "replace", replace)  # All of it is waited for together, afterwards.
    store = DiskBlobStore(tmp_path / "new" / "models")
    digest, manifest = store.pack("classifier", made)
    kept = {digest, *chunk_sizes(manifest)}
    paths = {tmp_path / "new" / "models" / "blobs" / each[:2] / each[2:] for each in kept}
    for path in paths:
        assert path in disk.bytes_on_disk
        assert {path, *path.parents} & set(disk.renamed) <= disk.names_on_disk


def test_nobody_renames_but_those_who_wait_for_the_disk() -> None:
    renames = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = node.func
                one = called.attr == "replace" and len(node.args) == 1 and not node.keywords
                of_os = isinstance(called.value, ast.Name) and called.value.id == "os"
                if called.attr in ("rename", "renames") or one or (of_os and "repl" in called.attr):
                    renames.add(str(path.relative_to(SOURCE)))
    assert renames <= MAY_RENAME
