"""Sites' news of the work that jobs wait for, and when no news means that it has stalled."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from daitn.control.jobs.job import Outstanding
from daitn.control.jobs.view import SILENT_S, JobNews
from daitn.objects.identifiers import VisitId
from daitn.objects.messages import WorkState, WorkStatus

__all__ = ["WorkWatch"]

log = logging.getLogger(__name__)

SILENT_AT_MOST_S: Final = 5400.0
"""Work whose status does not change for this long has stalled. Sites themselves end stalled work
within an hour, so this catches those that do not."""
QUEUED_AT_MOST_S: Final = 86_400.0
"""The same for work that is queued at the site."""
UNREPORTED_AT_MOST_S: Final = 300.0
"""A site that reports work as ended has failed if no valid report arrives for this long: sites
repeat reports every few seconds."""


@dataclass
class _Last:
    """The last status of work at a site, and since when it has been unchanged (monotonic)."""

    status: WorkStatus
    since_s: float
    logged: bool = False
    """Whether the log mentions that it has long been unchanged."""


class WorkWatch:
    """The latest status of each piece of work. Times are monotonic."""

    def __init__(self) -> None:
        self._last: dict[VisitId, _Last] = {}

    def received(self, visit: VisitId, status: WorkStatus, now_s: float) -> bool:
        """Record a site's status. Returns whether its place in the site's queue changed."""
        last = self._last.get(visit)
        if last is not None and last.status == status:
            return False
        self._last[visit] = _Last(status, now_s)
        return (last.status.ahead if last else 0) != status.ahead

    def has(self, visit: VisitId) -> bool:
        """Whether a site has ever reported on this work, and so has accepted it."""
        return visit in self._last

    def news(self, visits: Iterable[VisitId], now_s: float) -> dict[VisitId, JobNews]:
        """What is known about these pieces of work."""
        known = ((visit, self._last.get(visit)) for visit in visits)
        return {v: JobNews(last.status, now_s - last.since_s) for v, last in known if last}

    def silent(self, outstanding: Mapping[VisitId, Outstanding], now_s: float) -> set[VisitId]:
        """Work without news for a while; each is reported once. Forgets all but `outstanding`."""
        self._last = {v: last for v, last in self._last.items() if v in outstanding}
        found = set()
        for visit, last in self._last.items():
            silent_s = now_s - last.since_s
            if silent_s >= SILENT_S and not last.logged and not last.status.ahead:
                last.logged = True
                log.warning(
                    "no news of %s from %s for %.0f s", visit, outstanding[visit].site, silent_s
                )
                found.add(visit)
        return found

    def stalled(self, now_s: float) -> dict[VisitId, float]:
        """Work that has stalled, with the seconds since its status changed."""
        return {
            visit: silent_s
            for visit, last in self._last.items()
            if (silent_s := now_s - last.since_s) >= _stall_timeout_s(last.status)
        }


def _stall_timeout_s(status: WorkStatus) -> float:
    if status.state is not WorkState.RUNNING:
        return UNREPORTED_AT_MOST_S
    return QUEUED_AT_MOST_S if status.ahead else SILENT_AT_MOST_S
