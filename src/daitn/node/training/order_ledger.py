"""A site's account of owners' orders: work stays within them, even after a restart."""

from __future__ import annotations

from pathlib import Path

import msgspec

from daitn.control.jobs.ordered import check_ordered
from daitn.files.items import ItemStore
from daitn.identity.orders import OrderBook
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.digests import file_of
from daitn.objects.identifiers import Digest
from daitn.objects.messages import MergeWork, VerifyWork, VisitWork, Work
from daitn.objects.moments import DAY_S
from daitn.objects.orders import OrderUsage

__all__ = ["OrderedWork", "order_of"]

_KEPT_S = DAY_S
"""After an order's expiry: clocks may be set."""


class OrderedWork:
    """Checks work against its order, and records on disk what was begun under each order."""

    def __init__(self, orders: OrderBook, folder: Path) -> None:
        self._orders = orders
        self._store = ItemStore(folder, OrderUsage)
        self._spent: dict[Digest, OrderUsage] = {}
        for spent in self._store:
            self._spent[spent.order] = spent
        self._forget_ended()

    def check(self, work: Work, node: NodeDescriptor, *, counted: bool = False) -> None:
        """Raise `Refused` or `Corrupt` unless the work's owner ordered it. `counted`: it resumes
        work that was counted before."""
        self._checked(work, node, counted=counted)

    def begin(self, work: Work, node: NodeDescriptor) -> None:
        """Check work again when it begins, since other work under the order may have begun
        meanwhile, and count it, whatever its outcome. Raises like `check`, and `StorageFull`."""
        spent = self._checked(work, node)
        if spent.order not in self._spent:
            self._forget_ended()
        spent = _with(spent, work)
        self._store.put(file_of(spent.order), spent)
        self._spent[spent.order] = spent

    def _forget_ended(self) -> None:
        ended_s = self._orders.now_s() - _KEPT_S
        for order in [name for name, spent in self._spent.items() if spent.until_s <= ended_s]:
            self._store.forget(file_of(order))
            del self._spent[order]

    def _checked(self, work: Work, node: NodeDescriptor, *, counted: bool = False) -> OrderUsage:
        order = self._orders.read_work(work)
        assert work.order is not None
        name = work.order.digest
        spent = self._spent.get(name) or OrderUsage(order=name, until_s=order.until_s)
        check_ordered(work, order, node, _with(spent, work, -1) if counted else spent)
        return spent


def order_of(work: Work) -> Digest:
    """The order's name in entries; empty for work without an order."""
    return work.order.digest if work.order else Digest("")


def _with(spent: OrderUsage, work: Work, times: int = 1) -> OrderUsage:
    """The usage with some work added, or removed: -1 times."""
    visits = fresh = examples = measurements = merges = 0
    match work:
        case VerifyWork():
            measurements = times
        case MergeWork():
            merges = times
        case VisitWork(model=None):
            visits = fresh = times
        case VisitWork():
            visits, examples = times, times * work.examples
    return msgspec.structs.replace(
        spent,
        visits=spent.visits + visits,
        fresh=spent.fresh + fresh,
        examples=spent.examples + examples,
        measurements=spent.measurements + measurements,
        merges=spent.merges + merges,
    )
