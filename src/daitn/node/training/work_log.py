"""A site's log of accepted work, which outlives the process.

The site logs work before it acknowledges it, and an outcome before it reports it. So neither a lost
message nor a restart makes it do work twice or forget a result.
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
"""Counted again from a start: the time of the report is not stored."""


class LoggedWork(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work, with its outcome once it has ended."""

    work: Work
    outcome: WorkOutcome | None = None
    reported: bool = False


class WorkLog:
    """All work of the site, on disk in `folder` and in memory."""

    def __init__(self, folder: Path) -> None:
        self._store = ItemStore(folder, LoggedWork)
        self._logged: dict[VisitId, LoggedWork] = {}
        self._reported_at_s: dict[VisitId, float] = {}
        """When this process first knew work as reported, oldest first."""
        for logged in self._store:
            self._add(logged)

    def get(self, visit: VisitId) -> LoggedWork | None:
        checked_name(visit, "visit")
        return self._logged.get(visit)

    def put(self, logged: LoggedWork) -> None:
        """Store it; it is on disk when this returns. Raises `StorageFull`."""
        self._store.put(logged.work.visit, logged)
        self._add(logged)

    def forget(self, visit: VisitId) -> None:
        self._store.forget(visit)
        self._logged.pop(visit, None)
        self._reported_at_s.pop(visit, None)

    def forget_reported(self) -> None:
        """Drop work that was reported long ago; nobody submits it again."""
        while self._reported_at_s:
            visit, reported_at_s = next(iter(self._reported_at_s.items()))
            if clock.elapsed_s() - reported_at_s <= KEEP_REPORTED_S:
                return
            self.forget(visit)

    def all(self) -> tuple[LoggedWork, ...]:
        """All logged work, sorted by visit."""
        return tuple(logged for _, logged in sorted(self._logged.items()))

    def models(self) -> frozenset[Digest]:
        """Models that unreported work needs or has made."""
        unreported = [logged for logged in self._logged.values() if not logged.reported]
        needed = {m.manifest for logged in unreported for m in logged.work.models}
        made = {
            logged.outcome.model.manifest
            for logged in unreported
            if logged.outcome and logged.outcome.model
        }
        return frozenset(needed | made)

    def _add(self, logged: LoggedWork) -> None:
        visit = logged.work.visit
        self._logged[visit] = logged
        if logged.reported:
            self._reported_at_s.setdefault(visit, clock.elapsed_s())
