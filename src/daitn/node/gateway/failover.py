"""Asking deployments on behalf of a query: what the failover machine decides, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from daitn.control.queries.attempts import Cause, Failed, GiveUp, TellFailed, TellLate
from daitn.control.queries.engine import late_after_s
from daitn.control.queries.failover import Failover
from daitn.control.queries.retry_budget import RetryBudget
from daitn.node.gateway.answer import Answer
from daitn.node.gateway.attempts import AttemptRunner
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.errors import overloaded, unavailable
from daitn.node.gateway.observations import seen_late
from daitn.node.gateway.topology import Topology
from daitn.node.gateway.upstream import AttemptFailed, Upstream
from daitn.openai.errors import ApiError
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import permitted

__all__ = ["FailoverProxy"]

_FAILED = Observation(failed=True)
_AS_ASKED: Mapping[str, object] = {}


class FailoverProxy:
    """Passes requests on to one deployment after the other until one answers."""

    def __init__(self, upstream: Upstream, topology: Topology, budget: RetryBudget) -> None:
        """`topology` hears of deployments that fail or are late; `budget` is the gateway's."""
        self._upstream = upstream
        self._topology = topology
        self._budget = budget

    def begin(
        self,
        query: RequestContext,
        rows: Iterable[int],
        *,
        stream: bool,
        changes: Mapping[str, object] = _AS_ASKED,
    ) -> AttemptRunner:
        """One request of a query, with `changes` in fields that are replaced. Its runner raises
        `ApiError` where none of `rows` answers."""
        constraints, late_after = query.intent.constraints, None
        if constraints.hedge:
            late_after = partial(late_after_s, query.plan, query.context, stream=stream)
        failover = Failover(
            rows,
            query.attempts,
            self._budget,
            most=constraints.attempts,
            late_after_s=late_after,
            relays=query.caller.relayed_by is None,
        )
        target = _Deployments(self._upstream, self._topology, query, stream, changes)
        return AttemptRunner(failover, target)


class _Deployments:
    """The deployments of a query's snapshot, asked for this query."""

    __slots__ = ("_changes", "_query", "_stream", "_topology", "_upstream")

    def __init__(
        self,
        upstream: Upstream,
        topology: Topology,
        query: RequestContext,
        stream: bool,
        changes: Mapping[str, object],
    ) -> None:
        self._upstream = upstream
        self._topology = topology
        self._query = query
        self._stream = stream
        self._changes = changes

    async def ask(self, row: int) -> Answer | Failed:
        try:
            return await self._upstream.ask(
                self._query, row, stream=self._stream, changes=self._changes
            )
        except AttemptFailed as failed:
            return self._failed(row, failed)

    def tell(self, told: TellFailed | TellLate) -> None:
        query, deployed = self._query, self._query.snapshot.rows[told.row]
        seen = _FAILED
        if isinstance(told, TellLate):
            seen = seen_late(query, told.row, told.waited_s, stream=self._stream)
        self._topology.observe(deployed.site, deployed.name, seen)

    def error(self, why: GiveUp) -> ApiError:
        if why.full:
            return overloaded("every deployment that may answer is full", why.retry_after_s)
        rows = self._query.snapshot.rows
        told = "; ".join(f"{rows[failed.row].id}: {failed.reason}" for failed in why.failures)
        return unavailable(f"no deployment that may answer could: {told or 'none is left'}")

    def _failed(self, row: int, failed: AttemptFailed) -> Failed:
        paths = None
        if failed.cause is Cause.UNREACHABLE:
            query, topology = self._query, self._topology
            topology.unreachable(failed.towards)
            paths = permitted(topology.paths(query.snapshot), query.snapshot, query.intent)
        return Failed(row, failed.cause, failed.reason, failed.retry_after_s, paths)
