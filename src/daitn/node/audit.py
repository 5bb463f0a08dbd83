"""A site's audit log on disk: who visited, what was refused, and what left.

Entries are lines of JSON in files that follow one another, `000001.jsonl`, `000002.jsonl`, ... An
entry is on the disk before its work goes on, so work without an entry does not happen: where the
disk has no room, the site refuses work.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from daitn.files.atomic import closed, make_folder, replace_file, sync
from daitn.identity.audit import (
    check_countersigned,
    check_record,
    line_of,
    read_record,
    recorded,
)
from daitn.identity.keys import SigningKey
from daitn.objects.audit import (
    MOST_HASHES,
    START,
    AuditClaim,
    AuditEntry,
    AuditEvent,
    AuditRecord,
    CountersignedHead,
    entry_hash,
)
from daitn.objects.errors import Corrupt, DaitnError, NotFound, StorageFull
from daitn.objects.identifiers import Digest, SiteId
from daitn.tools import clock

__all__ = ["NAME_CHARS", "AuditLog", "Verified", "audit_files", "entries", "verify"]

log = logging.getLogger(__name__)

MOST_FILE_BYTES = 16 << 20
"""Some 25,000 entries. An entry that does not fit begins the next file."""
MOST_FILES = 64
"""1 GiB. Beyond it, the oldest is deleted; the chain then begins at the oldest remaining one."""
_MOST_UNCLAIMED = 16 * MOST_HASHES
"""Entries kept in memory while no control centre signs; a later claim begins after the others."""
_SUFFIX = ".jsonl"
NAME_CHARS, _REASON_CHARS = 200, 500
"""Strangers choose these words, so they are cut off."""
_TORN = ".torn"


class _Link(NamedTuple):
    """What a claim needs of an entry."""

    hash: bytes
    digest: Digest
    signature: str

    @classmethod
    def of(cls, record: AuditRecord) -> _Link:
        return cls(entry_hash(record.entry), record.digest, record.signature)


class AuditLog:
    """The log of a running site, which is its only writer.

    Raises `Corrupt` if the end of the log is not what a site writes, `StorageFull` if the folder
    cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        site: SiteId,
        key: SigningKey,
        now_s: Callable[[], float] = clock.now_s,
        most_file_bytes: int = MOST_FILE_BYTES,
    ) -> None:
        self._folder = folder
        self._site = site
        self._key = key
        self._now_s = now_s
        self._most_bytes = most_file_bytes
        self._number, self._digest = 0, START
        self._claimed = (0, START)
        """Number and digest of the entry after which the next claim starts: usually the latest
        signed by a control centre."""
        self._unclaimed: deque[_Link] = deque()
        """The entries since then."""
        try:
            make_folder(folder)
            files = audit_files(folder)
            torn = _cut_torn(files[-1]) if files else 0
            self._path = files[-1] if files else folder / f"{1:06}{_SUFFIX}"
            self._file = _opened(self._path)
        except OSError as error:
            raise _unwritable(folder, error) from None
        self._read_back(files)
        if torn:
            self.append(AuditEvent.TORN, size_bytes=torn)
        self.append(AuditEvent.STARTED)

    def append(self, event: AuditEvent, **values: Any) -> AuditEntry:
        """Add an entry; it is on the disk when this returns. Raises `StorageFull`."""
        plain = {name: _bounded(name, value) for name, value in values.items()}
        entry = AuditEntry(number=self._number + 1, at_s=self._now_s(), event=event, **plain)
        record = recorded(entry, self._digest, self._key)
        try:
            self._write(line_of(record))
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        self._take(record)
        return entry

    def claim(self) -> AuditClaim | None:
        """The next claim for a control centre to sign; none if it has signed everything."""
        since = list(itertools.islice(self._unclaimed, MOST_HASHES))
        if not since:
            return None
        after, digest = self._claimed
        hashes = tuple(link.hash for link in since)
        return AuditClaim(after=after, digest=digest, hashes=hashes, signature=since[-1].signature)

    def witnessed(self, head: CountersignedHead) -> None:
        """Store a control centre's signature. Raises `StorageFull`.

        One that does not match this log says that one of the two lost or changed a part of it.
        """
        try:
            check_countersigned(head)
            matches = head.site == self._site and self._digest_at(head.number) == head.digest
        except Corrupt:
            matches = False
        if not matches:
            log.error(
                "a control centre has signed entry %d of this site's audit log in another form: "
                "the log was restored from an old copy, or changed; `daitn audit verify` says more",
                head.number,
            )
            return
        before, _ = self._claimed
        self._claim_from(head)
        if head.number > before:
            self.append(AuditEvent.COUNTERSIGNED, head=head)

    def since(self, at_s: float) -> Iterator[AuditEntry]:
        """The entries from a time on, latest first."""
        for record in self._latest_first():
            if record.entry.at_s < at_s:
                return
            yield record.entry

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._file = closed(self._file)

    def _write(self, line: bytes) -> None:
        """Write a line, whole or not at all while this process lives."""
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._most_bytes:
            self._rotate()
            size = 0
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def _rotate(self) -> None:
        following = self._folder / f"{int(self._path.stem) + 1:06}{_SUFFIX}"
        file = _opened(following)
        os.close(self._file)
        self._path, self._file = following, file
        for path in audit_files(self._folder)[:-MOST_FILES]:
            path.unlink()

    def _take(self, record: AuditRecord) -> None:
        self._number, self._digest = record.entry.number, record.digest
        self._unclaimed.append(_Link.of(record))
        if len(self._unclaimed) > _MOST_UNCLAIMED:
            after, _ = self._claimed
            self._claimed = (after + 1, self._unclaimed.popleft().digest)

    def _claim_from(self, head: CountersignedHead) -> None:
        after, _ = self._claimed
        if head.number < after:
            later = itertools.takewhile(
                lambda r: r.entry.number > head.number, self._latest_first()
            )
            self._unclaimed = deque(map(_Link.of, later))
            self._unclaimed.reverse()
        for _ in range(after, head.number):
            self._unclaimed.popleft()
        self._claimed = (head.number, head.digest)

    def _digest_at(self, number: int) -> Digest | None:
        after, digest = self._claimed
        if number == after:
            return digest
        if after < number <= self._number:
            return self._unclaimed[number - after - 1].digest
        found = (r.digest for r in self._latest_first() if r.entry.number == number)
        return next(found, None) if number <= self._number else None

    def _latest_first(self) -> Iterator[AuditRecord]:
        for path in reversed(audit_files(self._folder)):
            yield from reversed(list(_records(path)))

    def _read_back(self, files: list[Path]) -> None:
        """Continue at the end of the log, and claim from the latest signature of a control
        centre."""
        recent = list(_all_records(files[-2:]))
        if not recent:
            return
        self._claimed = (recent[0].entry.number - 1, recent[0].previous)
        for record in recent:
            self._take(record)
        heads = [record.entry.head for record in recent if record.entry.head is not None]
        if heads and heads[-1].number >= self._claimed[0]:
            self._claim_from(heads[-1])


@dataclass(frozen=True)
class Verified:
    """An unbroken chain."""

    first: int
    """Number of the first entry."""
    last: int
    digest: Digest
    """Digest of the last entry."""
    public_key: str
    """The site's key, with which every entry is signed."""
    countersigned: int
    """The latest entry that a control centre has signed; 0 means none of these."""
    centers: tuple[str, ...]
    """Keys of the control centres that have signed entries."""


def audit_files(path: Path) -> list[Path]:
    """The files of a log, oldest first: `path` itself, or those in the folder, or in the state
    folder, that it names."""
    if path.is_file():
        return [path]
    inner = path / "audit"
    return sorted((inner if inner.is_dir() else path).glob(f"*{_SUFFIX}"))


def entries(path: Path) -> Iterator[AuditEntry]:
    """All entries that can be read, unchecked, oldest first. Raises `NotFound`."""
    for record in _all_records(_found(path)):
        yield record.entry


def verify(path: Path, public_key: str = "") -> Verified:
    """Check a log from end to end.

    Raises `Corrupt` with the first line that breaks the chain in `field`, and `NotFound`. With
    `public_key`, every entry must be signed with this key.
    """
    before: AuditRecord | None = None
    first = 0
    digests: dict[int, Digest] = {}
    countersigned, centers = 0, dict[str, None]()
    for file in _found(path):
        for position, line in enumerate(_lines(file), 1):
            try:
                record = check_record(line)
                _check_follows(record, before, public_key)
                first = first or record.entry.number
                digests[record.entry.number] = record.digest
                head = record.entry.head
                if head is not None:
                    _check_head(head, digests, first)
                    countersigned = max(countersigned, head.number)
                    centers[head.public_key] = None
            except DaitnError as error:
                raise Corrupt(
                    f"the chain is broken: {error.problem}",
                    field=f"{file}:{position}",
                    fix="this line, or one right before it, was changed, moved or removed; "
                    "compare with a backup",
                ) from None
            before = record
    if before is None:
        raise NotFound(f"there is no entry in {path}", fix="name a site's state folder")
    return Verified(
        first=first,
        last=before.entry.number,
        digest=before.digest,
        public_key=before.public_key,
        countersigned=countersigned if countersigned >= first else 0,
        centers=tuple(centers),
    )


def _check_follows(record: AuditRecord, before: AuditRecord | None, public_key: str) -> None:
    if before is None:
        if record.entry.number == 1 and record.previous != START:
            raise Corrupt("the first entry follows another one")
    elif record.previous != before.digest or record.entry.number != before.entry.number + 1:
        raise Corrupt(f"it does not follow entry {before.entry.number}")
    expected = public_key or (before.public_key if before else record.public_key)
    if record.public_key != expected:
        raise Corrupt("it is signed with another key")


def _check_head(head: CountersignedHead, digests: dict[int, Digest], first: int) -> None:
    check_countersigned(head)
    if head.number >= first and digests.get(head.number) != head.digest:
        raise Corrupt(f"a control centre has signed entry {head.number} in another form")


def _found(path: Path) -> list[Path]:
    files = audit_files(path)
    if not files:
        raise NotFound(
            f"there is no audit log at {path}",
            field=str(path),
            fix="name a site's state folder, the folder `audit` in it, or a file of that",
        )
    return files


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _records(path: Path) -> Iterator[AuditRecord]:
    """The records of a file. Raises `Corrupt` with the first invalid line."""
    for position, line in enumerate(_lines(path), 1):
        try:
            yield read_record(line)
        except Corrupt as error:
            raise Corrupt(
                error.problem,
                field=f"{path}:{position}",
                fix="keep the folder for analysis, and start with an empty one",
            ) from None


def _all_records(files: Iterable[Path]) -> Iterator[AuditRecord]:
    for path in files:
        yield from _records(path)


def _cut_torn(path: Path) -> int:
    """Remove the last line if it is incomplete; returns its length in bytes.

    Only the last one can be such a line, since each is on the disk before the next is written. It
    is set aside for people to look at.
    """
    data = path.read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    last = data[start:]
    try:
        if last:
            check_record(last)
        return 0
    except Corrupt as error:
        log.warning("the last line of %s is torn and set aside: %s", path, error.problem)
    replace_file(path.with_name(path.name + _TORN), last)
    with path.open("r+b") as file:
        file.truncate(start)
        os.fsync(file.fileno())
    return len(last)


def _opened(path: Path) -> int:
    fresh = not path.exists()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if fresh:
        sync(path.parent)
    return file


def _bounded(name: str, value: Any) -> Any:
    """A value that surely fits into a line and can be read back."""
    if isinstance(value, str):
        text = value[: _REASON_CHARS if name == "reason" else NAME_CHARS]
        return text.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {
            _bounded("", str(key)): float(each)
            for key, each in value.items()
            if math.isfinite(each)
        }
    return value


def _unwritable(folder: Path, error: OSError) -> StorageFull:
    return StorageFull(
        f"the audit log cannot be written: {error.strerror}",
        fix=f"free space for {folder}, and check that it is writable: without an entry in its "
        f"audit log, a site does no work",
    )
