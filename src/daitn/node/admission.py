"""Admits work by data owners' policies, and logs its outcome.

What was used today is counted from the audit log, so that a restart forgets nothing, and nothing is
kept twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from daitn.node.audit import NAME_CHARS, AuditLog
from daitn.node.config import DatasetConfig, TestSetConfig
from daitn.objects.access import AccessRequest, DailyUsage, decide
from daitn.objects.audit import AuditEntry, AuditEvent
from daitn.objects.deployments import DeploymentDescriptor
from daitn.objects.errors import DaitnError, Refused
from daitn.objects.findings import Finding
from daitn.objects.lineage import Entry, Verification, Visit, given_to
from daitn.objects.messages import VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.objects.moments import DAY_S
from daitn.objects.opening_hours import day_of
from daitn.tools import clock

__all__ = ["Admission", "Attempt", "request_of"]

log = logging.getLogger(__name__)

_TWO_DAYS_S = 2 * DAY_S
"""Covers today in every time zone, with its longest day."""
_ENDINGS = frozenset(
    (AuditEvent.VISITED, AuditEvent.MEASURED, AuditEvent.FAILED, AuditEvent.STOPPED)
)


def request_of(work: Work) -> AccessRequest:
    """The request that a piece of work makes to a policy."""
    if isinstance(work, VisitWork):
        examples = work.examples if work.model is not None else 0
        return AccessRequest(
            work.owner, work.recipe, work.purpose, examples, brought=_brought(work)
        )
    return AccessRequest(
        work.owner, work.recipe, work.purpose, measures=isinstance(work, VerifyWork)
    )


def _examining(deployment: DeploymentDescriptor) -> AccessRequest:
    """The request that a round of questions to a deployed model makes to its test set's policy."""
    return AccessRequest(deployment.owner, deployment.recipe, measures=True)


def _brought(work: VisitWork) -> bool:
    """Whether the model started from parts supplied by its owner. Orders fix the start of a
    lineage."""
    if not work.lineage:
        return work.model is not None
    return bool(given_to(work.lineage[0].fact))


@dataclass
class _Day:
    """Use of one data set or test set on one day."""

    day: int
    visits: Counter[str] = field(default_factory=Counter)
    measurements: Counter[str] = field(default_factory=Counter)
    examples: Counter[str] = field(default_factory=Counter)
    """By owner, like the next two."""
    compute_s: float = 0.0

    def count(self, entry: AuditEntry) -> None:
        if entry.event in _ENDINGS:
            self.compute_s += entry.seconds
        elif entry.event is AuditEvent.BEGUN and entry.examples:
            self.visits[entry.owner] += 1
            self.examples[entry.owner] += entry.examples
        elif entry.event is AuditEvent.BEGUN:
            self.measurements[entry.owner] += 1

    def usage(self, owner: str) -> DailyUsage:
        return DailyUsage(
            self.visits[owner], self.measurements[owner], self.examples[owner], self.compute_s
        )


@dataclass
class Attempt:
    """A piece of work from its arrival to its end, for the audit log."""

    about: dict[str, Any]
    """Fields of all its entries."""
    began_s: float | None = None
    """When it began to read records, on a monotonic clock; `None` means not yet."""

    def seconds(self) -> float:
        """Seconds since it began to read records."""
        return 0.0 if self.began_s is None else clock.elapsed_s() - self.began_s


class Admission:
    """Enforces the data owners' policies at a site."""

    def __init__(
        self,
        audit: AuditLog,
        data: Iterable[DatasetConfig | TestSetConfig],
        now_s: Callable[[], float] = clock.now_s,
    ) -> None:
        """`data`: the data sets and test sets in the site's file."""
        self._audit = audit
        self._now_s = now_s
        self._days: dict[str, _Day] = {}
        zones = {each.disclosure.name: each.terms.time_zone for each in data}
        for entry in audit.since(now_s() - _TWO_DAYS_S):
            if entry.data in zones:
                self._day(entry.data, day_of(zones[entry.data], entry.at_s)).count(entry)

    def check(
        self,
        data: DatasetConfig | TestSetConfig,
        request: AccessRequest,
        counted_at_s: float | None = None,
    ) -> None:
        """Raise `Refused` unless the data's policy allows the request now. `counted_at_s`: when
        resumed work was counted. It then counts towards that day's limits and hours, and may run
        beyond them."""
        terms, name = data.terms, data.disclosure.name
        if counted_at_s is None:
            usage = self._today(name, terms.time_zone).usage(request.owner[:NAME_CHARS])
        else:
            usage = DailyUsage()
        at_s = self._now_s() if counted_at_s is None else counted_at_s
        no = decide(terms, terms.limits, request, usage, at_s, name)
        if no is not None:
            raise no

    def begin(
        self, data: DatasetConfig | TestSetConfig, request: AccessRequest, attempt: Attempt
    ) -> None:
        """Check a request again, right before records are read, and count it.

        It counts whatever becomes of it, as a failure can tell something too. Raises `Refused`, and
        `StorageFull` if it cannot be logged.
        """
        self.check(data, request)
        name = data.disclosure.name
        entry = self._append(attempt, AuditEvent.BEGUN)
        attempt.began_s = clock.elapsed_s()
        self._today(name, data.terms.time_zone).count(entry)

    def resume(
        self,
        data: DatasetConfig | TestSetConfig,
        request: AccessRequest,
        attempt: Attempt,
        counted_at_s: float,
    ) -> None:
        """Continue work that was counted before. Raises like `begin`."""
        self.check(data, request, counted_at_s)
        self._append(attempt, AuditEvent.RESUMED)
        attempt.began_s = clock.elapsed_s()

    @contextmanager
    def attempt(self, work: Work) -> Iterator[Attempt]:
        """Log work that does not end well; `finished` logs the rest."""
        request = request_of(work)
        attempt = Attempt(
            {
                "owner": request.owner,
                "job": work.job,
                "visit": work.visit,
                "recipe": request.recipe,
                "purpose": request.purpose,
                "examples": max(0, request.examples),
            }
        )
        try:
            yield attempt
        except Refused as error:
            self._unfinished(attempt, AuditEvent.REFUSED, error)
            raise
        except asyncio.CancelledError:
            self._unfinished(attempt, AuditEvent.STOPPED, None)
            raise
        except Exception as error:
            self._unfinished(attempt, AuditEvent.FAILED, error)
            raise

    def finished(self, attempt: Attempt, entry: Entry, model: ModelRef | None) -> None:
        """Log what leaves, before it does. Raises `StorageFull`; then nothing leaves."""
        fact = entry.fact
        if isinstance(fact, Verification):
            of_labels = {f"{fact.metric} of {label}": v for label, v in fact.by_label.items()}
            values = {fact.metric: fact.value, **of_labels}
            self._ended(attempt, AuditEvent.MEASURED, model=fact.model, values=values)
            return
        assert model is not None
        left = {"model": model.manifest, "size_bytes": model.size_bytes}
        if isinstance(fact, Visit):
            values = {} if fact.loss is None else {"loss": fact.loss}
            if fact.privacy is not None:
                values |= {"epsilon": fact.privacy.epsilon, "delta": fact.privacy.delta}
            self._ended(attempt, AuditEvent.VISITED, values=values, **left)
        else:
            self._ended(attempt, AuditEvent.MADE, **left)

    def may_examine(self, test: TestSetConfig, deployment: DeploymentDescriptor) -> bool:
        """Whether a round could begin now; nothing is counted or logged."""
        try:
            self.check(test, _examining(deployment))
        except Refused:
            return False
        return True

    def examination(self, test: TestSetConfig, deployment: DeploymentDescriptor) -> Attempt:
        """Count and log a round of questions to a deployed model.

        Nobody asked for it, so a refusal is not logged. Raises `Refused`, `StorageFull`.
        """
        request = _examining(deployment)
        about = {"owner": request.owner, "recipe": request.recipe, "data": test.disclosure.name}
        attempt = Attempt({**about, "model": deployment.manifest or ""})
        self.begin(test, request, attempt)
        attempt.began_s = None  # It takes no computing time of this site's.
        return attempt

    def examined(self, attempt: Attempt, finding: Finding) -> None:
        """Log a finding, before it leaves. Raises `StorageFull`."""
        where = f"{finding.deployment}@{finding.site}"
        values = {finding.metric: finding.value}
        self._ended(attempt, AuditEvent.MEASURED, visit=where, values=values)

    def _unfinished(self, attempt: Attempt, event: AuditEvent, error: Exception | None) -> None:
        """Log work that released nothing except an error; the error itself matters more than a full
        disk."""
        try:
            if isinstance(error, DaitnError):
                self._ended(attempt, event, reason=error.problem, field=error.field)
            else:
                self._ended(attempt, event, reason=type(error).__name__ if error else "")
        except DaitnError as unlogged:
            log.error("%s of %s is not logged: %s", event, attempt.about["visit"], unlogged)

    def _ended(self, attempt: Attempt, event: AuditEvent, **more: Any) -> None:
        entry = self._append(attempt, event, seconds=attempt.seconds(), **more)
        attempt.began_s = None
        if entry.data in self._days:
            self._days[entry.data].count(entry)

    def _append(self, attempt: Attempt, event: AuditEvent, **more: Any) -> AuditEntry:
        return self._audit.append(event, **{**attempt.about, **more})

    def _today(self, name: str, zone: str) -> _Day:
        """Today's use of some data; setting a clock back starts no new day."""
        day = day_of(zone, self._now_s())
        known = self._days.get(name)
        return self._day(name, max(day, known.day) if known else day)

    def _day(self, name: str, day: int) -> _Day:
        """The use on a day to be counted; earlier days are not kept."""
        known = self._days.get(name)
        if known is not None and known.day > day:
            return _Day(day)
        if known is None or known.day < day:
            known = self._days[name] = _Day(day)
        return known
