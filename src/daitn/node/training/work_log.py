"""A site's memory of the work that it accepted: it outlives the process.

A piece of work is noted before it is acknowledged, and its outcome before it is reported, so
that neither a lost message nor a restart makes the site do it twice or forget what it made.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from daitn.objects.errors import Corrupt, StorageFull
from daitn.objects.identifiers import Digest, VisitId, checked_name
from daitn.objects.messages import Work, WorkOutcome
from daitn.objects.wire import decode, encode
from daitn.tools.files.atomic import PARTIAL, make_folder, replace_file

__all__ = ["LoggedWork", "WorkLog"]


KEEP_REPORTED_S = 3600.0


class LoggedWork(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work, and how it ended if it did."""

    work: Work
    outcome: WorkOutcome | None = None
    reported: bool = False


class WorkLog:
    """One file per piece of work in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()

    def get(self, visit: VisitId) -> LoggedWork | None:
        path = self._path(visit)
        try:
            return decode(path.read_bytes(), LoggedWork)
        except FileNotFoundError:
            return None
        except Corrupt:
            path.unlink()
            return None

    def put(self, logged: LoggedWork) -> None:
        """Keep a note; on disk when this returns. Raises `StorageFull` where it cannot be kept."""
        try:
            replace_file(self._path(logged.work.visit), encode(logged))
        except OSError as error:
            raise StorageFull(
                f"the work log in {self._folder.name} cannot be written: {error.strerror}",
                fix="free room in the site's state folder, and check that it may be written",
            ) from None

    def forget(self, visit: VisitId) -> None:
        self._path(visit).unlink(missing_ok=True)

    def forget_reported(self) -> None:
        """Drop notes of work that was heard of long ago; nobody hands it in again."""
        for logged in self.all():
            path = self._path(logged.work.visit)
            if logged.reported and time.time() - path.stat().st_mtime > KEEP_REPORTED_S:
                self.forget(logged.work.visit)

    def all(self) -> tuple[LoggedWork, ...]:
        """Every note, by visit."""
        visits = sorted(path.name for path in self._folder.iterdir() if path.suffix != PARTIAL)
        notes = (self.get(VisitId(name)) for name in visits)
        return tuple(note for note in notes if note is not None)

    def models(self) -> frozenset[Digest]:
        """Models that work not yet reported needs or has made."""
        open_notes = [note for note in self.all() if not note.reported]
        needed = {note.work.model.manifest for note in open_notes if note.work.model}
        made = {
            note.outcome.model.manifest
            for note in open_notes
            if note.outcome and note.outcome.model
        }
        return frozenset(needed | made)

    def _path(self, visit: VisitId) -> Path:
        return self._folder / checked_name(visit, "visit")
