"""A visit goes on after the process that trains, or its node, is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from daitn.node.audit import entries
from daitn.node.disclosure import LossState
from daitn.node.training.begun import KEPT_S, BegunVisit, BegunVisits
from daitn.objects.audit import AuditEvent
from daitn.objects.identifiers import VisitId
from daitn.objects.wire import decode, encode
from tests.scenes.visited_site import EXAMPLES, Told, VisitedSite

VISIT = VisitId("j-1.2")


def run(folder: Path, kills: str) -> subprocess.CompletedProcess[bytes]:
    command = (sys.executable, "-m", "tests.scenes.visited_site", str(folder), kills)
    return subprocess.run(command, capture_output=True, check=False, timeout=300)


def told(ended: subprocess.CompletedProcess[bytes]) -> Told:
    assert ended.returncode == 0, ended.stderr.decode()
    return msgspec.json.decode(ended.stdout, type=Told)


def events(folder: Path) -> list[AuditEvent]:
    written = [entry.event for entry in entries(folder / "state" / "audit")]
    return [event for event in written if event not in (AuditEvent.STARTED, AuditEvent.MADE)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with a key: whoever has a copy draws the same."""
    folder = tmp_path_factory.mktemp("site")
    VisitedSite(folder).audit.close()
    return folder


@pytest.fixture(scope="module")
def whole(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The visit, as nobody interrupts it."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(site, folder, dirs_exist_ok=True)
    return told(run(folder, "nothing"))


@pytest.fixture(scope="module")
def killed(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site whose node was killed in mid-visit."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copytree(site, folder, dirs_exist_ok=True)
    assert run(folder, "node").returncode == -signal.SIGKILL
    return folder


@pytest.mark.processes
def test_a_visit_goes_on_after_its_node_was_killed(site: Path, whole: Told, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    killed = run(tmp_path, "node")
    assert killed.returncode == -signal.SIGKILL
    begun = BegunVisits(tmp_path / "state" / "visits").get(VISIT)
    assert begun is not None
    assert begun.got_on
    after = told(run(tmp_path, "nothing"))
    assert (after.model, after.loss) == (whole.model, whole.loss)
    assert 0 < len(after.steps) < len(whole.steps), "it did not begin anew"
    assert set(after.steps) <= set(whole.steps), "nothing is told in other words"
    assert events(tmp_path) == [AuditEvent.BEGUN, AuditEvent.RESUMED, AuditEvent.VISITED]


@pytest.mark.processes
def test_a_visit_goes_on_after_its_worker_was_killed(
    site: Path, whole: Told, tmp_path: Path
) -> None:
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    after = told(run(tmp_path, "worker"))
    assert (after.model, after.loss) == (whole.model, whole.loss)
    assert set(after.steps) == set(whole.steps)
    assert events(tmp_path) == [AuditEvent.BEGUN, AuditEvent.VISITED]


@pytest.mark.processes
def test_other_data_begins_anew_and_counts_again(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    data = tmp_path / "data.csv"
    was, lines = data.stat(), data.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    data.write_text("\n".join([*lines, ""]))
    os.utime(data, ns=(was.st_atime_ns, was.st_mtime_ns))
    after = told(run(tmp_path, "nothing"))
    assert after.steps[0][0] < EXAMPLES / 10, "from the start"
    assert events(tmp_path) == [AuditEvent.BEGUN, AuditEvent.BEGUN, AuditEvent.VISITED]


def begun(**changes: object) -> BegunVisit:
    return BegunVisit(**{"made_of": "a", "counted_at_s": 1.0, "savepoint": 1} | changes)  # type: ignore[arg-type]


def test_what_is_kept_goes_with_its_visit_and_after_a_day(tmp_path: Path) -> None:
    now_s = [1000.0]
    visits = BegunVisits(tmp_path, lambda: now_s[0])
    assert tmp_path.stat().st_mode & 0o077 == 0
    for visit in ("a.1", "b.1", "c.1"):
        folder = visits.folder(VisitId(visit))
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "1.savepoint").write_bytes(b"weights")
    for visit in ("a.1", "b.1"):
        visits.put(VisitId(visit), begun())
    visits.forget(VisitId("a.1"))
    assert visits.get(VisitId("a.1")) is None
    again = BegunVisits(tmp_path, lambda: now_s[0])
    assert [path.parent.name for path in tmp_path.rglob("*.savepoint")] == ["b.1"]
    now_s[0] += KEPT_S + 1.0
    again.forget_old()
    assert list(tmp_path.rglob("*.savepoint")) == []
    assert again.get(VisitId("b.1")) is None


def test_one_savepoint_of_a_visit_stays(tmp_path: Path) -> None:
    visits = BegunVisits(tmp_path)
    for number in (1, 2, 3):
        (visits.folder(VISIT) / f"{number}.savepoint").write_bytes(b"weights")
        visits.put(VISIT, begun(savepoint=number, losses=LossState(done=number)))
    assert [path.name for path in visits.folder(VISIT).iterdir()] == ["3.savepoint"]
    kept = visits.get(VISIT)
    assert kept is not None
    assert kept.losses.done == 3


def test_losses_that_left_are_kept_under_the_name_that_earlier_releases_read() -> None:
    """A loss is told once: whoever forgets that it left would tell it again with other noise."""
    kept = decode(encode(begun(savepoint=1, published=(0.5, None))), dict[str, object])
    assert kept["told"] == [0.5, None]
    assert decode(encode(kept), BegunVisit).published == (0.5, None)
