"""Looking for one answer: deployments in turn, within a budget, and a second one where the first
is unusually late."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping

from daitn.control.queries.engine import LATE_TIMES
from daitn.node.gateway.answer import Answer
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.errors import overloaded, unavailable
from daitn.node.gateway.hedge import Hedge
from daitn.node.gateway.observations import seen_late
from daitn.node.gateway.retry_budget import RetryBudget
from daitn.node.gateway.topology import Topology
from daitn.node.gateway.upstream import AttemptFailed, Cause, Upstream
from daitn.openai.errors import ApiError
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import permitted

__all__ = ["FAILED", "Failover", "FailoverAttempts", "late_after_s"]

FAILED = Observation(failed=True)
_AS_ASKED: Mapping[str, object] = {}


class Failover:
    """What searches share: connections, the topology that hears of failures, the retry budget."""

    def __init__(self, upstream: Upstream, topology: Topology, budget: RetryBudget) -> None:
        self.upstream = upstream
        self.topology = topology
        self.budget = budget


class FailoverAttempts:
    """Asks rows until one answers. May be gone on with: what was tried is not tried again."""

    def __init__(
        self,
        asking: Failover,
        query: RequestContext,
        rows: Iterable[int],
        *,
        stream: bool,
        changes: Mapping[str, object] = _AS_ASKED,
    ) -> None:
        """`changes`: fields of the request that are replaced."""
        self._asking = asking
        self._query = query
        self._rows = deque(rows)
        self._stream = stream
        self._changes = changes
        self._left = query.intent.constraints.attempts
        self._ways: set[tuple[int, str | None]] = set()
        self._failures: dict[str, AttemptFailed] = {}
        self._refused: list[int] = []
        """Rows that did, of which nobody was told yet."""
        self._begun = False

    async def answer(self) -> Answer:
        """The first that comes. Raises `ApiError` where none does."""
        while True:
            row = self._next()
            began_s = time.perf_counter()
            if self._query.intent.constraints.hedge and self._rows and self._left:
                late_s = late_after_s(self._query, row, stream=self._stream)
                hedge = Hedge(self._attempt, self._beside, self._overtaken)
                answer = await hedge.answer(row, late_s)
            else:
                answer = await self._attempt(row)
            self._query.away_s += time.perf_counter() - began_s
            if answer is not None:
                self._tell_refused()
                return answer

    def go_on_with(self, rows: Iterable[int]) -> None:
        """Look among these rows only."""
        self._rows = deque(rows)

    def _next(self) -> int:
        row = self._another(first=not self._begun)
        if row is None:
            raise self._given_up()
        return row

    def _another(self, *, first: bool = False) -> int | None:
        """The next row, if there is one, and a retry is left for it."""
        rtt_s = self._query.paths.rtt_s
        while self._rows and self._left:
            if not first and math.isinf(rtt_s[self._rows[0]]):
                self._rows.popleft()
                continue
            if not first and not self._asking.budget.spend(time.monotonic()):
                return None
            self._begun = True
            self._left -= 1
            return self._rows.popleft()
        return None

    async def _attempt(self, row: int) -> Answer | None:
        query = self._query
        query.attempts += 1
        self._ways.add((row, query.relay(row)))
        try:
            return await self._asking.upstream.ask(
                query, row, stream=self._stream, changes=self._changes
            )
        except AttemptFailed as failed:
            self._note(row, failed)
            return None

    def _beside(self) -> int | None:
        """A row to be asked while another one is late."""
        row = self._another()
        self._query.hedged |= row is not None
        return row

    def _overtaken(self, row: int, so_far_s: float) -> None:
        deployed = self._query.snapshot.rows[row]
        seen = seen_late(self._query, row, so_far_s, stream=self._stream)
        self._asking.topology.observe(deployed.site, deployed.name, seen)

    def _note(self, row: int, failed: AttemptFailed) -> None:
        query, topology = self._query, self._asking.topology
        deployed = query.snapshot.rows[row]
        if failed.cause is Cause.UNREACHABLE:
            topology.unreachable(failed.towards)
            paths = topology.paths(query.snapshot)
            query.paths = permitted(paths, query.snapshot, query.intent)
            there = math.isfinite(query.paths.rtt_s[row])
            if there and (row, query.relay(row)) not in self._ways:
                self._rows.appendleft(row)
                return
        query.failed.add(row)
        self._failures[deployed.id] = failed
        if failed.cause is Cause.REFUSED:
            self._refused.append(row)
        elif failed.cause is not Cause.FULL:
            topology.observe(deployed.site, deployed.name, FAILED)

    def _tell_refused(self) -> None:
        """Another row answered this very query, so it was not the query's fault: with bad queries
        alone, nobody takes a deployment away from others."""
        for row in self._refused:
            deployed = self._query.snapshot.rows[row]
            self._asking.topology.observe(deployed.site, deployed.name, FAILED)
        self._refused.clear()

    def _given_up(self) -> ApiError:
        failures = self._failures.values()
        if failures and all(failed.cause is Cause.FULL for failed in failures):
            waits_s = [f.retry_after_s for f in failures if f.retry_after_s is not None]
            return overloaded(
                "every deployment that may answer is full", min(waits_s, default=None)
            )
        told = "; ".join(f"{id_}: {failed.reason}" for id_, failed in self._failures.items())
        return unavailable(f"no deployment that may answer could: {told or 'none is left'}")


def late_after_s(query: RequestContext, row: int, *, stream: bool) -> float:
    """When an answer is unusually late. QIRCE reckons with first pieces; an answer that comes at
    once has all its tokens to go."""
    if stream:
        return query.plan.late_after_s
    per_token_s = float(query.snapshot.columns.per_token_s[row])
    return query.plan.late_after_s + LATE_TIMES * per_token_s * query.intent.tokens_out
