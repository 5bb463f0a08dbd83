"""Counts work when it begins: against its owner's order, and against the policy of its data. Work
resumed from a savepoint was counted before and is not counted again."""

from __future__ import annotations

import logging

import msgspec

from daitn.node.admission import Admission, Attempt, request_of
from daitn.node.config import DatasetConfig, TestSetConfig
from daitn.node.training.begun import BegunVisit, BegunVisits
from daitn.node.training.order_ledger import OrderedWork
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.messages import VisitWork, Work
from daitn.tools import clock

__all__ = ["WorkCounter"]

log = logging.getLogger(__name__)


class WorkCounter:
    """Checks work before anything is done for it, and counts it once it begins."""

    def __init__(
        self, admission: Admission, ordered: OrderedWork | None, begun: BegunVisits | None
    ) -> None:
        """Without `ordered`, work needs no order; without `begun`, no visit is resumed."""
        self._admission = admission
        self._ordered = ordered
        self._begun = begun
        self._node: NodeDescriptor | None = None

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Learn what orders may be about."""
        self._node = descriptor

    def check_order(self, work: Work) -> None:
        """Raise `Refused` or `Corrupt` unless the work's owner ordered it."""
        if self._ordered is not None:
            assert self._node is not None
            counted = self.counted_at_s(work) is not None
            self._ordered.check(work, self._node, counted=counted)

    def check_policy(
        self, data: DatasetConfig | TestSetConfig, work: Work, attempt: Attempt
    ) -> None:
        """Raise `Refused` unless the data's policy allows the work."""
        attempt.about["data"] = data.disclosure.name
        self._admission.check(data, request_of(work), self.counted_at_s(work))

    def counted_at_s(self, work: Work) -> float | None:
        """When resumed work was counted, seconds since the epoch; `None` for work not yet
        counted."""
        begun = self._begun.get(work.visit) if self._begun is not None else None
        return begun.counted_at_s if begun is not None and begun.got_on else None

    def begin(self, work: Work) -> None:
        """Count work that reads no records against its order. Raises like `OrderedWork.begin`."""
        if self._ordered is not None:
            assert self._node is not None
            self._ordered.begin(work, self._node)

    def begin_on(self, data: DatasetConfig | TestSetConfig, work: Work, attempt: Attempt) -> None:
        """Count work on records. Raises like `Admission.begin` and `OrderedWork.begin`."""
        self._admission.begin(data, request_of(work), attempt)
        self.begin(work)

    def begin_visit(
        self, work: VisitWork, dataset: DatasetConfig, made_of: str, attempt: Attempt
    ) -> BegunVisit:
        """Count a visit, unless it resumes a counted one. Raises like `begin_on`.

        `made_of`: a digest of everything that decides the result. A savepoint with another one is
        dropped.
        """
        begun = self._begun.get(work.visit) if self._begun is not None else None
        if begun is not None and begun.made_of != made_of:
            log.warning("the savepoint of %s is of other data or work: it goes", work.visit)
            begun = None
        if begun is not None and begun.got_on:
            self._admission.resume(dataset, request_of(work), attempt, begun.counted_at_s)
            return begun
        self.begin_on(dataset, work, attempt)
        now_s = clock.now_s()
        if begun is not None:
            return msgspec.structs.replace(begun, counted_at_s=now_s)
        if self._begun is not None:
            self._begun.forget(work.visit)
        return BegunVisit(made_of=made_of, counted_at_s=now_s)
