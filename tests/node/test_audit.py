"""The audit log: every change of what was written is found, and a power cut takes nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daitn.center.audit import Witness
from daitn.identity.audit import countersign, line_of, recorded
from daitn.identity.keys import SigningKey
from daitn.node import audit as module
from daitn.node.audit import AuditLog, audit_files, entries, verify
from daitn.objects.audit import MOST_HASHES, START, AuditEntry, AuditEvent
from daitn.objects.errors import Corrupt, NotFound, StorageFull
from daitn.objects.identifiers import SiteId
from daitn.tools.journal.memory import MemoryJournal

SITE = SiteId("north")
KEY, CENTER = SigningKey.generate(), SigningKey.generate()


def opened(folder: Path, **options: Any) -> AuditLog:
    return AuditLog(folder, SITE, KEY, lambda: 1000.0, **options)


def written(folder: Path, count: int = 6, **options: Any) -> list[bytes]:
    """The lines of a log with the entry of its start and `count` more."""
    log = opened(folder, **options)
    for number in range(count):
        log.append(AuditEvent.REFUSED, owner="acme", visit=f"v-{number}", reason="no")
    log.close()
    return [line for file in audit_files(folder) for line in file.open("rb")]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return written(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "000001.jsonl"


def broken_at(file: Path, lines: list[bytes]) -> int:
    """The line at which the check finds the chain broken."""
    file.write_bytes(b"".join(lines))
    with pytest.raises(Corrupt) as caught:
        verify(file)
    name, _, line = caught.value.field.rpartition(":")
    assert name == str(file)
    return int(line)


def test_what_was_written_is_read_and_whole(tmp_path: Path) -> None:
    written(tmp_path)
    found = list(entries(tmp_path))
    assert [entry.event for entry in found] == [AuditEvent.STARTED] + 6 * [AuditEvent.REFUSED]
    checked = verify(tmp_path, KEY.public)
    assert (checked.first, checked.last, checked.public_key) == (1, 7, KEY.public)
    assert verify(tmp_path / "000001.jsonl") == checked
    with pytest.raises(Corrupt, match="another key"):
        verify(tmp_path, CENTER.public)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_any_flipped_bit_is_found_in_its_line(
    data: st.DataObject, lines: list[bytes], file: Path
) -> None:
    at = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[at]) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(lines[at])
    flipped[place] ^= 1 << bit
    changed = [*lines[:at], bytes(flipped), *lines[at + 1 :]]
    assert broken_at(file, changed) == at + 1


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_removed_line_is_found(data: st.DataObject, lines: list[bytes], file: Path) -> None:
    at = data.draw(st.integers(1, len(lines) - 2))
    assert broken_at(file, lines[:at] + lines[at + 1 :]) == at + 1


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_in_another_order_are_found(
    data: st.DataObject, lines: list[bytes], file: Path
) -> None:
    order = data.draw(st.permutations(range(1, len(lines))).filter(lambda p: p != sorted(p)))
    shuffled = [lines[0], *(lines[at] for at in order)]
    first = next(place for place, at in enumerate(order, 1) if place != at)
    assert broken_at(file, shuffled) == first + 1


def test_a_doubled_line_and_an_entry_of_another_are_found(lines: list[bytes], file: Path) -> None:
    assert broken_at(file, [*lines[:3], lines[2], *lines[3:]]) == 4
    log = AuditLog(file.parent / "other", SITE, SigningKey.generate(), lambda: 1000.0)
    log.append(AuditEvent.REFUSED)
    log.close()
    (other,) = audit_files(file.parent / "other")
    assert broken_at(file, [lines[0], other.read_bytes().splitlines(keepends=True)[1]]) == 2


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_torn_last_line_is_set_aside_and_the_rest_goes_on(tmp_path: Path, left: int) -> None:
    before = written(tmp_path)
    (file,) = audit_files(tmp_path)
    file.write_bytes(b"".join(before[:-1]) + before[-1][:left])
    opened(tmp_path).close()
    found = list(entries(tmp_path))
    assert [e.event for e in found[-2:]] == [AuditEvent.TORN, AuditEvent.STARTED]
    assert found[-2].size_bytes == len(before[-1][:left])
    assert file.with_name(file.name + ".torn").read_bytes() == before[-1][:left]
    assert verify(tmp_path).last == len(before) + 1


def test_a_site_that_goes_back_a_release_goes_on_with_its_log(tmp_path: Path) -> None:
    """Its later release wrote more into each entry. None of them is torn or lost."""
    digest, lines = START, []
    for number in range(1, 4):
        entry = AuditEntry(
            number=number, at_s=1000.0, event=AuditEvent.REFUSED, visit=f"v-{number}",
            more={"policy": 7, "by": ("a", "b")},
        )  # fmt: skip
        record = recorded(entry, digest, KEY)
        digest = record.digest
        lines.append(line_of(record))
    file = tmp_path / "000001.jsonl"
    file.write_bytes(b"".join(lines))
    log = opened(tmp_path)
    log.append(AuditEvent.REFUSED, visit="v-4")
    log.close()
    found = list(entries(tmp_path))
    assert [one.visit for one in found] == ["v-1", "v-2", "v-3", "", "v-4"]
    assert found[1].more == {"policy": 7, "by": ("a", "b")}
    assert verify(tmp_path, KEY.public).last == len(found)
    assert broken_at(file, [lines[0], lines[1].replace(b'"policy":7', b'"policy":8')]) == 2


def test_what_a_disk_leaves_of_a_line_is_torn_too(tmp_path: Path) -> None:
    before = written(tmp_path)
    (file,) = audit_files(tmp_path)
    for rest in (b"\0" * 300, b"\0" * 300 + b"}\n", b"\n"):
        file.write_bytes(b"".join(before) + rest)
        opened(tmp_path).close()
        assert [e.event for e in entries(tmp_path)][-2] is AuditEvent.TORN
        verify(tmp_path)


def test_damage_before_the_end_is_no_torn_line(tmp_path: Path) -> None:
    before = written(tmp_path)
    (file,) = audit_files(tmp_path)
    file.write_bytes(b"".join([*before[:2], before[2].replace(b"acme", b"evil"), *before[3:]]))
    with pytest.raises(Corrupt) as caught:
        opened(tmp_path)
    assert caught.value.field == f"{file}:3"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(StorageFull):
        log.append(AuditEvent.REFUSED)
    monkeypatch.setattr(os, "write", write)

    def failing(file: int) -> None:
        raise OSError(errno.EIO, "it is broken")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        with pytest.raises(StorageFull, match="broken"):
            log.append(AuditEvent.REFUSED)
    log.append(AuditEvent.REFUSED)
    log.close()
    assert verify(tmp_path).last == 2


def test_an_entry_is_on_the_disk_when_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: dict[str, int] = {}
    fsync = os.fsync

    def synced(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        listed = path.is_dir()
        on_disk[path.name] = len(list(path.iterdir())) if listed else path.stat().st_size
        fsync(file)

    monkeypatch.setattr(os, "fsync", synced)
    log = opened(tmp_path / "audit", most_file_bytes=1500)
    for _ in range(6):
        log.append(AuditEvent.REFUSED)
        newest = audit_files(tmp_path)[-1]
        assert on_disk[newest.name] == newest.stat().st_size
        assert on_disk["audit"] == len(audit_files(tmp_path))
    log.close()
    assert len(audit_files(tmp_path)) > 1


def test_the_chain_goes_on_from_file_to_file_and_old_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    written(tmp_path, 30, most_file_bytes=2000)
    files = audit_files(tmp_path)
    assert len(files) == 3
    assert all(file.stat().st_size <= 2000 for file in files)
    checked = verify(tmp_path)
    assert checked.last == 31
    assert checked.first > 1
    opened(tmp_path, most_file_bytes=2000).close()
    assert verify(tmp_path).last == 32
    files[1].unlink()
    with pytest.raises(Corrupt):
        verify(tmp_path)


def test_words_of_strangers_fit_into_a_line(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(
        AuditEvent.REFUSED,
        owner="x" * 10**6,
        reason="\ud800\n\x1b[31m" + "y" * 10**6,
        values={"accuracy": float("nan"), "loss": 1.5},
    )
    log.close()
    (file,) = audit_files(tmp_path)
    assert file.stat().st_size < 4000
    last = list(entries(tmp_path))[-1]
    assert last.values == {"loss": 1.5}
    assert file.read_bytes().count(b"\n") == 2
    verify(tmp_path)


def test_no_log_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path)
    (tmp_path / "000001.jsonl").touch()
    with pytest.raises(NotFound):
        verify(tmp_path)


class Told:
    """A site's log, and a control centre that it reports to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = MemoryJournal()
        self.witness = Witness(self.journal, CENTER)
        self.log = opened(folder)

    def report(self) -> int:
        """What the control centre has signed now."""
        head = self.witness.answer(SITE, self.log.claim(), KEY.public)
        assert head is not None
        self.log.witnessed(head)
        return head.number

    def restart(self) -> None:
        self.log.close()
        self.log = opened(self.folder)


def test_the_control_centre_signs_where_the_log_stands(tmp_path: Path) -> None:
    told = Told(tmp_path)
    assert told.report() == 1
    for number in range(3):
        told.log.append(AuditEvent.REFUSED)
        assert told.report() == 3 + 2 * number, "its own signature is an entry too"
    told.restart()
    assert told.report() == 9
    told.log.close()
    checked = verify(tmp_path)
    assert checked.countersigned == 9
    assert checked.centers == (CENTER.public,)
    assert checked.last == 10


def test_a_rewritten_log_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = Told(tmp_path / "one")
    told.log.append(AuditEvent.REFUSED, owner="acme")
    assert told.report() == 2
    told.log.close()
    told.log = opened(tmp_path / "another")
    told.log.append(AuditEvent.VISITED, owner="acme")
    told.log.append(AuditEvent.VISITED, owner="acme")
    assert told.report() == 2, "it signs no other past"
    assert told.report() == 2
    assert caplog.text.count("does not go on from entry 2") == 2
    assert caplog.text.count("in another form") == 2
    assert AuditEvent.COUNTERSIGNED not in [e.event for e in entries(tmp_path / "another")]


def test_a_log_of_which_the_end_is_lost_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(tmp_path)
    told.log.append(AuditEvent.REFUSED)
    told.log.append(AuditEvent.REFUSED)
    told.report()
    told.log.close()
    (file,) = audit_files(tmp_path)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:1]))
    told.log = opened(tmp_path)
    told.report()
    assert "in another form" in caplog.text


def test_audit_reports_resume_from_the_last_head_that_the_control_centre_has(
    tmp_path: Path,
) -> None:
    told = Told(tmp_path)
    told.witness.answer(SITE, told.log.claim(), KEY.public)  # The answer is lost.
    told.log.append(AuditEvent.REFUSED)
    assert told.report() == 2
    backup = dict(told.journal.all("audit-head"))
    for _ in range(3):
        told.log.append(AuditEvent.REFUSED)
        told.report()
    for name, value in backup.items():
        told.journal.put("audit-head", name, value)
    assert told.report() == 2
    assert told.report() > 8
    told.log.close()
    verify(tmp_path)


def test_a_long_chain_is_claimed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HASHES", 4)
    monkeypatch.setattr(module, "_MOST_UNCLAIMED", 16)
    told = Told(tmp_path)
    for _ in range(30):
        told.log.append(AuditEvent.REFUSED)
    first = told.report()
    assert first == 31 - 16 + 4, "older ones are kept on disk only"
    while told.report() < 31:
        pass
    told.log.close()
    assert verify(tmp_path).countersigned >= 31
    assert MOST_HASHES == 4096


def test_only_the_site_claims_and_only_true_signatures_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(tmp_path)
    claim = told.log.claim()
    with pytest.raises(Corrupt):
        told.witness.answer(SITE, claim, CENTER.public)
    assert told.witness.answer(SITE, None, KEY.public) is None
    head = told.witness.answer(SITE, claim, KEY.public)
    assert head is not None
    other = countersign(SiteId("south"), head.number, head.digest, 1.0, CENTER)
    told.log.witnessed(other)
    assert "in another form" in caplog.text
    assert told.log.claim() == claim
