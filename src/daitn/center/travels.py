"""Usage of travelling models: their homes report it, and the ledger records it once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from daitn.control.accounting.travels import of_travels
from daitn.control.jobs.job import Job
from daitn.control.jobs.travelling import job_of
from daitn.identity.orders import OrderBook
from daitn.identity.signing import check_entry
from daitn.objects.agents import Agent, TravelReceipt
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import SiteId, VisitId
from daitn.objects.jobs import Reported
from daitn.objects.orders import SignedOrder
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric.caller import check_site
from daitn.tools.journal.protocol import Journal

__all__ = ["TravelAccounts"]

_HOME = "order-home"
"""By the digest of an order: the home whose job it started."""


class TravelAccounts:
    """Posts homes' reports on their travelling models."""

    def __init__(
        self,
        journal: Journal,
        orders: OrderBook | None,
        key_of: Callable[[SiteId], str | None],
        is_ordered: Callable[[SignedOrder], bool],
    ) -> None:
        """`orders` checks that owners ordered what they pay; none on a fabric without signatures.
        `key_of`: of a site, as known to the network. `is_ordered`: whether an order has started a
        job of this control centre."""
        self._journal = journal
        self._orders = orders
        self._key_of = key_of
        self._is_ordered = is_ordered

    async def on_travelled(self, key: str, payload: bytes) -> bytes:
        """`Agent` -> `TravelReceipt`: a home reports one of its travelling models; its usage since
        the last report is posted."""
        agent = decode(payload, Agent)
        check_site(agent.home)
        job = await asyncio.to_thread(job_of, agent)
        records = self._check_ordered(agent, job)
        entries = of_travels(agent.home, job.entries, set(self._proven(agent)), clock.now_s())
        self._journal.post(entries, records)
        return encode(TravelReceipt(entries=len(job.entries)))

    def _check_ordered(self, agent: Agent, job: Job) -> dict[tuple[str, str], bytes]:
        """Raise `Refused` or `Corrupt` unless the paying owner ordered this job, at this home.
        Returns what to remember of that."""
        name, number = f"{job.intent.name}-{agent.home}-", job.id.rpartition("-")[2]
        if job.id != name + number or not number.isdecimal():
            raise Refused(f"{job.id} is not a job of {agent.home}", field="home")
        if self._orders is None:
            return {}
        order = self._orders.read(job.order, ended=True)
        if order.intent != job.intent or order.start is not None or job.start is not None:
            raise Refused(f"{job.id} is not what its owner ordered", field="order")
        assert job.order is not None
        # Anybody who has seen an order could submit it as its own job's. It belongs to the first
        # one.
        stated = encode((agent.home, job.id))
        known = self._journal.get(_HOME, job.order.digest)
        if known not in (None, stated) or self._is_ordered(job.order):
            raise Refused(f"the order of {job.id} has started another job", field="order")
        return {(_HOME, job.order.digest): stated}

    def _proven(self, agent: Agent) -> Iterator[VisitId]:
        """Work for this job signed by a site of the network."""
        for fact in agent.facts:
            if not isinstance(fact.event, Reported) or fact.event.outcome.entry is None:
                continue
            entry = fact.event.outcome.entry
            if entry.fact.job != agent.job or self._key_of(entry.fact.site) != entry.public_key:
                continue
            try:
                check_entry(entry)
            except Corrupt:
                continue
            yield entry.fact.visit
