"""Counts work as it begins: against its order, and against the policy of the data that it reads.

What goes on from a savepoint has counted, and does not count again.
"""

from __future__ import annotations

import logging

import msgspec

from daitn.node.admission import Admission, Attempt, request_of
from daitn.node.config import DatasetConfig, TestSetConfig
from daitn.node.training.begun import BegunVisit, BegunVisits
from daitn.node.training.ordered import OrderedWork
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
        """`ordered`: none: work needs no order. `begun`: none: no visit goes on."""
        self._admission = admission
        self._ordered = ordered
        self._begun = begun
        self._node: NodeDescriptor | None = None

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Know what orders may be about."""
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
        """When work that goes on counted against order and policy; none: it will."""
        begun = self._begun.get(work.visit) if self._begun is not None else None
        return begun.counted_at_s if begun is not None and begun.got_on else None

    def begin(self, work: Work) -> None:
        """Count work that reads no records against its order. Raises as `OrderedWork.begin`."""
        if self._ordered is not None:
            assert self._node is not None
            self._ordered.begin(work, self._node)

    def begin_on(self, data: DatasetConfig | TestSetConfig, work: Work, attempt: Attempt) -> None:
        """Count work on records. Raises as `Admission.begin` and `OrderedWork.begin`."""
        self._admission.begin(data, request_of(work), attempt)
        self.begin(work)

    def begin_visit(
        self, work: VisitWork, dataset: DatasetConfig, made_of: str, attempt: Attempt
    ) -> BegunVisit:
        """Count a visit, unless it goes on and has counted. Raises as `begin_on`.

        `made_of`: a digest of all that decides its result, which a savepoint must share.
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
