"""Queries deployments over HTTP, as the failover machine decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from daitn.control.queries.attempts import Cause, Failed, GiveUp, ReportFailed, ReportLate
from daitn.control.queries.failover import Failover
from daitn.control.queries.hedging import late_after_s
from daitn.control.queries.retry_budget import RetryBudget
from daitn.node.gateway.attempts import AttemptRunner
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.deployment_answer import Answer
from daitn.node.gateway.errors import misconfigured, overloaded, unavailable
from daitn.node.gateway.observations import observed_late
from daitn.node.gateway.topology import Topology
from daitn.node.gateway.upstream import AttemptFailed, Upstream
from daitn.openai.errors import ApiError, Error, read_error
from daitn.topology.qrrt.observation import FAILED
from daitn.topology.qrrt.paths import permitted

__all__ = ["FailoverProxy"]

_UNCHANGED: Mapping[str, object] = {}


class FailoverProxy:
    """Sends a request to one deployment after the other until one answers."""

    def __init__(self, upstream: Upstream, topology: Topology, budget: RetryBudget) -> None:
        """`topology` receives observations of failed and late deployments; all queries share
        `budget`."""
        self._upstream = upstream
        self._topology = topology
        self._budget = budget

    def begin(
        self,
        query: RequestContext,
        rows: Iterable[int],
        *,
        stream: bool,
        changes: Mapping[str, object] = _UNCHANGED,
    ) -> AttemptRunner:
        """Begin one request of a query, with some fields replaced by `changes`. The runner raises
        `ApiError` if none of `rows` answers."""
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
    """The rows of a query's snapshot, for this query."""

    __slots__ = ("_changes", "_errors", "_query", "_stream", "_topology", "_upstream")

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
        self._errors: dict[int, Answer] = {}
        """Errors of rows that are not suited for the query."""

    async def ask(self, row: int) -> Answer | Failed:
        try:
            return await self._upstream.ask(
                self._query, row, stream=self._stream, changes=self._changes
            )
        except AttemptFailed as failed:
            return self._failed(row, failed)

    def report(self, command: ReportFailed | ReportLate) -> None:
        query, deployment = self._query, self._query.snapshot.rows[command.row]
        observation = FAILED
        if isinstance(command, ReportLate):
            observation = observed_late(query, command.row, command.waited_s, stream=self._stream)
        self._topology.observe(deployment.site, deployment.name, observation)

    def error(self, why: GiveUp) -> ApiError:
        rows = self._query.snapshot.rows
        reasons = "; ".join(f"{rows[failed.row].id}: {failed.reason}" for failed in why.failures)
        if why.full:
            return overloaded(
                f"every deployment that may answer is full: {reasons}", why.retry_after_s
            )
        problem = f"no deployment could answer: {reasons or 'none is left to ask'}"
        if why.untried:
            problem += f"; {why.untried} more not asked, as attempts or retries are used up"
        if self._errors and all(one.permanent for one in why.failures):
            return _as_answered(next(iter(self._errors.values())), problem)
        if why.permanent:
            return misconfigured(problem)
        return unavailable(problem, why.retry_after_s)

    def _failed(self, row: int, failed: AttemptFailed) -> Failed:
        failure, answer, paths = failed.failure, failed.answer, None
        assert failure.cause is not None
        if failure.cause is Cause.UNSUITED and answer is not None:
            self._errors[row] = answer
        if failure.cause is Cause.UNREACHABLE:
            query, topology = self._query, self._topology
            topology.unreachable(failed.site)
            wanted = query.intent.constraints
            paths = permitted(topology.paths(query.snapshot), query.snapshot, wanted)
        hint_s = None if answer is None or failure.permanent else answer.retry_after_s
        return Failed(row, failure.cause, failed.reason, hint_s, paths, failure.permanent)


def _as_answered(answer: Answer, problem: str) -> ApiError:
    """The error of an unsuited deployment, as none is suited; it also mentions the other
    attempts."""
    error = read_error(answer.body) or Error()
    code = error.code if isinstance(error.code, str) and error.code else "unsupported"
    return ApiError(
        answer.status,
        code,
        error.message or problem,
        param=error.param,
        daitn={"tried": problem},
    )
