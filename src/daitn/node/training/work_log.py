"""A site's memory of the work that it accepted: it outlives the process.

A piece of work is noted before it is acknowledged, and its outcome before it is reported, so
that neither a lost message nor a restart makes the site do it twice or forget what it made.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daitn.files.items import ItemStore
from daitn.objects.identifiers import Digest, VisitId, checked_name
from daitn.objects.messages import Work, WorkOutcome
from daitn.tools import clock

__all__ = ["LoggedWork", "WorkLog"]


KEEP_REPORTED_S = 3600.0
"""Also after a start: for how long it was reported before is not known."""


class LoggedWork(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work, and how it ended if it did."""

    work: Work
    outcome: WorkOutcome | None = None
    reported: bool = False


class WorkLog:
    """All work of the site, on disk in `folder` and in memory."""

    def __init__(self, folder: Path) -> None:
        self._store = ItemStore(folder, LoggedWork)
        self._logged: dict[VisitId, LoggedWork] = {}
        self._reported_s: dict[VisitId, float] = {}
        """When work was first known as reported in this life, the longest first."""
        for logged in self._store:
            self._take(logged)

    def get(self, visit: VisitId) -> LoggedWork | None:
        checked_name(visit, "visit")
        return self._logged.get(visit)

    def put(self, logged: LoggedWork) -> None:
        """Keep it; on disk when this returns. Raises `StorageFull` where it cannot be kept."""
        self._store.put(logged.work.visit, logged)
        self._take(logged)

    def forget(self, visit: VisitId) -> None:
        self._store.forget(visit)
        self._logged.pop(visit, None)
        self._reported_s.pop(visit, None)

    def forget_reported(self) -> None:
        """Drop work that was reported long ago; nobody hands it in again."""
        while self._reported_s:
            visit, reported_s = next(iter(self._reported_s.items()))
            if clock.elapsed_s() - reported_s <= KEEP_REPORTED_S:
                return
            self.forget(visit)

    def all(self) -> tuple[LoggedWork, ...]:
        """Everything, by visit."""
        return tuple(logged for _, logged in sorted(self._logged.items()))

    def models(self) -> frozenset[Digest]:
        """Models that work not yet reported needs or has made."""
        unreported = [logged for logged in self._logged.values() if not logged.reported]
        needed = {logged.work.model.manifest for logged in unreported if logged.work.model}
        made = {
            logged.outcome.model.manifest
            for logged in unreported
            if logged.outcome and logged.outcome.model
        }
        return frozenset(needed | made)

    def _take(self, logged: LoggedWork) -> None:
        visit = logged.work.visit
        self._logged[visit] = logged
        if logged.reported:
            self._reported_s.setdefault(visit, clock.elapsed_s())
