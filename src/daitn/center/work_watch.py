"""Sites' news of the work that jobs wait for, and when no news means that it has stalled.

Only a step towards the end is news: more done than ever of a part of the work, a part that is new,
or a better place in the queue. As a site may invent that for ever, work has a time limit too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from immutables import Map

from daitn.control.jobs.job import Outstanding
from daitn.control.jobs.stages import WAITS_AT_MOST_S
from daitn.control.jobs.view import SILENT_S, JobNews
from daitn.objects.identifiers import VisitId
from daitn.objects.messages import WorkState, WorkStatus
from daitn.objects.moments import DAY_S

__all__ = ["Stall", "WorkWatch"]

log = logging.getLogger(__name__)

SILENT_AT_MOST_S: Final = 5400.0
"""Work without progress for this long has stalled. Sites themselves end stalled work within an
hour, so this catches those that do not."""
QUEUED_AT_MOST_S: Final = DAY_S
"""The same for work that is queued at the site."""
UNREPORTED_AT_MOST_S: Final = 300.0
"""A site that reports work as ended has failed if no valid report arrives for this long: sites
repeat reports every few seconds."""
LONGEST_S: Final = 2 * DAY_S
"""Work may take this long after its queue: a site's own limit is a day, unless its file says more.
"""
LONGEST_TIMES: Final = 20.0
"""And this many times what the plan expects. A site of unknown speed is rarely ten times slower
than its estimate."""
LONGEST_QUEUED_S: Final = WAITS_AT_MOST_S
"""Work may be queued this long."""
MOST_RESTARTS: Final = 1024
"""How often work may return to an earlier part: when its site is started anew, or with each of the
models that it fetches, of which a merge has up to `MOST_MERGED`, with their starts."""
MOST_PARTS: Final = 1024
"""Limit on parts of work since then: phases, and models of different sizes."""


class Stall(NamedTuple):
    """How work has stalled, in seconds."""

    silent_s: float
    """Since its last progress."""
    took_s: float = 0.0
    """Since its beginning, if that is too long; else 0."""


@dataclass
class _Last:
    """The last status of work at a site. Times are monotonic."""

    status: WorkStatus
    queued_since_s: float
    since_s: float
    """When it last made progress."""
    began_s: float | None = None
    """When it was first reported as not queued."""
    done: dict[tuple[WorkState, str, int], int] = field(default_factory=dict)
    """The most that was done of each part, by state, phase and total."""
    restarts: int = 0
    logged: bool = False
    """Whether the log mentions that it has long made no progress."""

    @classmethod
    def first(cls, status: WorkStatus, now_s: float) -> _Last:
        made = cls(status, queued_since_s=now_s, since_s=now_s)
        made.take(status, now_s)
        return made

    def take(self, status: WorkStatus, now_s: float) -> None:
        """Take a status, and note whether it is progress."""
        if self.began_s is None and not status.ahead:
            self.began_s = self.since_s = now_s
        nearer = status.ahead < self.status.ahead
        if self._advances(status) or nearer:
            self.since_s, self.logged = now_s, False
        self.status = status

    def _advances(self, status: WorkStatus) -> bool:
        part, done = _part(status), status.done if status.state is WorkState.RUNNING else 0
        before = self.done.get(part, -1)
        returns = before >= 0 and part != _part(self.status)
        if (returns or done < before) and self.restarts < MOST_RESTARTS:
            self.restarts += 1
            self.done.clear()
            before = -1
        if done <= before or len(self.done) >= MOST_PARTS:
            return False
        self.done[part] = done
        return True


def _part(status: WorkStatus) -> tuple[WorkState, str, int]:
    return status.state, status.phase, status.total


class WorkWatch:
    """The latest status of each piece of work. Times are monotonic."""

    def __init__(self) -> None:
        self._last: dict[VisitId, _Last] = {}

    def received(self, visit: VisitId, status: WorkStatus, now_s: float) -> bool:
        """Record a site's status. Returns whether its place in the site's queue changed."""
        last = self._last.get(visit)
        if last is None:
            self._last[visit] = _Last.first(status, now_s)
            return status.ahead != 0
        ahead = last.status.ahead
        last.take(status, now_s)
        return ahead != status.ahead

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

    def stalled(
        self, now_s: float, expected_s: Mapping[VisitId, float] = Map()
    ) -> dict[VisitId, Stall]:
        """Work that has stalled, given what plans expect it to take."""
        found = {}
        for visit, last in self._last.items():
            took_s = _over_s(last, now_s, expected_s.get(visit, 0.0))
            if (silent_s := now_s - last.since_s) >= _stall_timeout_s(last.status) or took_s:
                found[visit] = Stall(silent_s, took_s)
        return found


def _over_s(last: _Last, now_s: float, expected_s: float) -> float:
    """How long work has taken, if that is too long; else 0."""
    if last.began_s is None:
        took_s, longest_s = now_s - last.queued_since_s, LONGEST_QUEUED_S
    else:
        took_s, longest_s = now_s - last.began_s, max(LONGEST_S, LONGEST_TIMES * expected_s)
    return took_s if took_s >= longest_s else 0.0


def _stall_timeout_s(status: WorkStatus) -> float:
    if status.state is not WorkState.RUNNING:
        return UNREPORTED_AT_MOST_S
    return QUEUED_AT_MOST_S if status.ahead else SILENT_AT_MOST_S
