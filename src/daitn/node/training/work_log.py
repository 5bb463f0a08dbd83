"""A site's memory of the work that it accepted: it outlives the process.

A piece of work is noted before it is acknowledged, and its outcome before it is reported, so
that neither a lost message nor a restart makes the site do it twice or forget what it made.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daitn.objects.errors import Corrupt, StorageFull
from daitn.objects.identifiers import Digest, VisitId, checked_name
from daitn.objects.messages import Work, WorkOutcome
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.files.atomic import PARTIAL, make_folder, replace_file

__all__ = ["LoggedWork", "WorkLog"]


KEEP_REPORTED_S = 3600.0
"""Also after a start: for how long it was reported before is not known."""


class LoggedWork(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work, and how it ended if it did."""

    work: Work
    outcome: WorkOutcome | None = None
    reported: bool = False


class WorkLog:
    """One file per piece of work in `folder`, read once: one process has it at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes: dict[VisitId, LoggedWork] = {}
        self._reported_s: dict[VisitId, float] = {}
        """When a note was first known as reported in this life, the longest first."""
        make_folder(folder)
        for path in sorted(folder.iterdir()):
            if path.suffix == PARTIAL:
                path.unlink()
            else:
                self._read(path)

    def get(self, visit: VisitId) -> LoggedWork | None:
        checked_name(visit, "visit")
        return self._notes.get(visit)

    def put(self, logged: LoggedWork) -> None:
        """Keep a note; on disk when this returns. Raises `StorageFull` where it cannot be kept."""
        try:
            replace_file(self._path(logged.work.visit), encode(logged))
        except OSError as error:
            raise StorageFull(
                f"the work log in {self._folder.name} cannot be written: {error.strerror}",
                fix="free room in the site's state folder, and check that it may be written",
            ) from None
        self._take(logged)

    def forget(self, visit: VisitId) -> None:
        self._path(visit).unlink(missing_ok=True)
        self._notes.pop(visit, None)
        self._reported_s.pop(visit, None)

    def forget_reported(self) -> None:
        """Drop notes of work that was heard of long ago; nobody hands it in again."""
        while self._reported_s:
            visit, reported_s = next(iter(self._reported_s.items()))
            if clock.elapsed_s() - reported_s <= KEEP_REPORTED_S:
                return
            self.forget(visit)

    def all(self) -> tuple[LoggedWork, ...]:
        """Every note, by visit."""
        return tuple(note for _, note in sorted(self._notes.items()))

    def models(self) -> frozenset[Digest]:
        """Models that work not yet reported needs or has made."""
        open_notes = [note for note in self._notes.values() if not note.reported]
        needed = {note.work.model.manifest for note in open_notes if note.work.model}
        made = {
            note.outcome.model.manifest
            for note in open_notes
            if note.outcome and note.outcome.model
        }
        return frozenset(needed | made)

    def _read(self, path: Path) -> None:
        try:
            self._take(decode(path.read_bytes(), LoggedWork))
        except Corrupt:
            path.unlink()

    def _take(self, logged: LoggedWork) -> None:
        visit = logged.work.visit
        self._notes[visit] = logged
        if logged.reported:
            self._reported_s.setdefault(visit, clock.elapsed_s())

    def _path(self, visit: VisitId) -> Path:
        return self._folder / checked_name(visit, "visit")
