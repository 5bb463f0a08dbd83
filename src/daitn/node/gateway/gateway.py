"""The gateway role: the HTTP APIs of OpenAI and Anthropic in front of the network.

The gateway reads a query, lets QIRCE decide on the QRRT, asks the deployments of the plan, and
passes the answer on. It stores nothing of a query's text.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from msgspec import structs

from daitn.control.queries.attempts import Attempts
from daitn.control.queries.context import QueryContext, QueryRefusal
from daitn.control.queries.engine import Qirce
from daitn.control.queries.lengths import AnswerLengths, expecting
from daitn.control.queries.retry_budget import RetryBudget
from daitn.identity.grants import signed_text
from daitn.identity.keys import SigningKey
from daitn.node.config import GatewayConfig
from daitn.node.gateway.affinity import Affinity
from daitn.node.gateway.answer_writer import ResponseWriter
from daitn.node.gateway.api import GatewayApi
from daitn.node.gateway.auth import ApiKeys, Authenticator, Tokens
from daitn.node.gateway.context import Caller, ChosenPlan, Outcome, RequestContext, Waiting
from daitn.node.gateway.conversations import Conversations
from daitn.node.gateway.demand import DemandEstimator
from daitn.node.gateway.errors import (
    deadline_passed,
    infeasible,
    internal,
    overloaded,
    status_of,
    stopping,
    unavailable,
)
from daitn.node.gateway.failover import FailoverProxy
from daitn.node.gateway.limits import KeyLimits, Metering
from daitn.node.gateway.metrics import (
    AVAILABLE,
    DEPLOYMENTS,
    MOST_RUNNING,
    RUNNING,
    GatewayMetrics,
)
from daitn.node.gateway.packet_queries import Packets, answer_by_packet, packet_plan
from daitn.node.gateway.plans import PlanExecutor
from daitn.node.gateway.query_log import QueryLog, SeededDraws
from daitn.node.gateway.request import ParsedRequest
from daitn.node.gateway.topology import Topology
from daitn.node.gateway.tracing import ended
from daitn.node.gateway.upstream import Upstream
from daitn.node.mandates import Mandates
from daitn.node.openai_http.api import CLOSED_S, json_response
from daitn.node.openai_http.tracing import operation
from daitn.node.usage.counts import UsageCounts
from daitn.objects.deployments import GatewayDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.grants import full_name
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand
from daitn.objects.queries import AUTO, QueryRecord, QueryStatus
from daitn.objects.requests import QueryExplained
from daitn.objects.tokens import USUAL_RATES
from daitn.openai.errors import ApiError, bad_request, from_daitn_error
from daitn.tools import clock
from daitn.tools.freed_arrays import keep_freed_arrays
from daitn.tools.http import Reply, Request
from daitn.tools.monitoring.log_ids import identified
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import OFF, TRACEPARENT, SpanKind, Tracer, passed_on
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.paths import permitted

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

GC_THRESHOLDS = (10_000, 20, 20)
"""Garbage collection thresholds: allocations per young collection, and young and middle collections
per collection of the next generation."""
STUCK_AFTER_S = 600.0
"""Time without any finished query after which a full gateway counts as stuck: answers take less."""
MIN_TOPIC_CONFIDENCE = 0.5
"""A topic with less confidence is more likely wrong than right."""


class Gateway:
    """A site's entry point for queries; it listens once `start` returns."""

    def __init__(
        self,
        site: SiteId,
        config: GatewayConfig,
        topology: Topology,
        key: SigningKey,
        admit: Callable[[str, float], SiteId],
        topic_of: Callable[[str], tuple[str, float]],
        packets: Packets | None = None,
        tls: str = "",
        owner: str = "",
        mandates: Mandates | None = None,
        tracer: Tracer = OFF,
        counts: UsageCounts | None = None,
    ) -> None:
        """`admit` returns the site whose pass is shown (at seconds since the epoch), or raises
        `Refused`. `topic_of` returns a text's topic and its confidence, in [0, 1]. `packets` sends
        autonomous queries; `None` means this node is not a forwarder. `tls`: folder with the
        certificates for `https://` addresses. `owner`: who runs the site. `mandates`: checks in
        whose name a query is asked; none in a network without a roster. `counts`: counts answers;
        `None` means nothing is counted, and keys have no limits except rates. Raises `InvalidInput`
        for keys of other owners if there is an owner."""
        self._site = site
        self._config = config
        self._topology = topology
        self._key = key
        self._topic_of = topic_of
        self._packets = packets
        self._tls = tls
        self._tracer = tracer
        self._owner, self._mandates = owner, mandates
        self._qirce = Qirce()
        self._query_log = QueryLog(self._qirce)
        self._demand = DemandEstimator(site)
        self._affinity = Affinity()
        self._load = GatewayLoad()
        self._lengths = AnswerLengths()
        self._budget = RetryBudget()
        self._metrics = GatewayMetrics()
        self._metering: Metering | None = None
        if counts is not None:
            limits = KeyLimits(counts, clock.wall_s, time.monotonic)
            self._metering = Metering(counts, limits, clock.wall_s)
        self._api = GatewayApi(
            config,
            tls,
            admit,
            self._serve,
            self._count_tokens,
            Conversations(topology, self._started),
            self._models,
            self._health,
            _authenticator(site, config, owner, mandates),
            mandates,
            self._metrics.refused,
        )
        self._seed = zlib.crc32(site.encode()) << 32
        self._query_count = 0
        self._in_flight = 0
        self._moved_at_s = time.monotonic()
        """When a query last began or ended."""
        self._timers: set[asyncio.Timeout] = set()
        """Timers of the queries in progress."""
        self._draining = self._cutting = False
        self.closed: Callable[[], str] = lambda: ""
        """Why it takes no queries for now; empty if it does."""
        self._upstream: Upstream | None = None
        self._plans: PlanExecutor | None = None

    async def start(self) -> None:
        """Start serving. Raises `InvalidInput` for an address that it cannot use."""
        self._upstream = Upstream(
            self._site, self._key, self._load, self._tls, self._config.max_answer_bytes
        )
        proxy = FailoverProxy(self._upstream, self._topology, self._budget)
        self._plans = PlanExecutor(proxy, self._budget, self._load)
        await self._api.start()
        # Existing objects live on, and queries leave few cycles behind: a collection after every
        # 700 new objects took a tenth of the gateway's time.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        keep_freed_arrays()

    def reconfigure(self, config: GatewayConfig) -> None:
        """Apply changed keys and limits. Raises `InvalidInput` as at the start."""
        self._api.admit_by(_authenticator(self._site, config, self._owner, self._mandates))
        self._config = config

    async def drain(self, timeout_s: float) -> None:
        """Take no new queries, and return when those in progress have ended, or after
        `timeout_s`."""
        self._draining = True
        await self._api.drain(timeout_s)

    async def close(self) -> None:
        """Take no new queries, end those in progress with an error, and close."""
        self._draining = self._cutting = True
        now_s = asyncio.get_running_loop().time()
        for timer in self._timers:
            timer.reschedule(now_s)
        await self._api.close()
        if self._upstream is not None:
            self._upstream.close()

    def descriptor(self) -> GatewayDescriptor:
        """The gateway's part of the node's descriptor, once it listens."""
        return GatewayDescriptor(endpoint=self._api.url)

    @property
    def in_progress(self) -> int:
        """Number of queries in progress."""
        return self._in_flight

    def demand(self, now_s: float) -> Demand:
        """The demand at this gateway, smoothed."""
        return self._demand.demand(now_s)

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield from self._metrics.measured()
        available = self._topology.snapshot().columns.available
        yield RUNNING.at(self._in_flight)
        yield MOST_RUNNING.at(self._config.max_in_flight)
        yield DEPLOYMENTS.at(len(available))
        yield AVAILABLE.at(int(available.sum()))

    def queries(
        self,
        limit: int,
        owner: str | None = None,
        without: Collection[str] = (),
        before: tuple[float, str] | None = None,
    ) -> tuple[QueryRecord, ...]:
        """The latest queries and how they were served; see `QueryLog.latest`."""
        return self._query_log.latest(limit, owner, without, before)

    def explain(self, id_: str) -> QueryExplained:
        """How a query was served, and the decision behind it. Raises `NotFound`."""
        return self._query_log.explain(id_)

    async def _serve(
        self, request: Request, caller: Caller, parsed: ParsedRequest, began_s: float
    ) -> Reply:
        full = self._in_flight >= self._config.max_in_flight
        query = self._new_query(request, caller, parsed, began_s, full)
        writer = ResponseWriter(request, query, self._topology)
        self._in_flight += 1
        self._moved_at_s = time.monotonic()
        ids = {"query": query.id}
        if query.span is not None:
            ids["trace_id"] = f"{query.span.context.trace_id:032x}"
        try:
            with identified(**ids):
                response = await self._answer(query, writer, full)
        except (asyncio.CancelledError, ConnectionError):
            if writer.delivered:  # The client had all of it, and did not wait for the last bytes.
                self._record(query, QueryStatus.ANSWERED, 200, "")
            else:
                self._record(query, QueryStatus.ABANDONED, 499, "the client disconnected")
            raise
        finally:
            self._in_flight -= 1
            self._moved_at_s = time.monotonic()
        return response

    async def _answer(self, query: RequestContext, writer: ResponseWriter, full: bool) -> Reply:
        assert self._plans is not None
        deadline_s = query.intent.constraints.deadline_s
        timer = asyncio.timeout(deadline_s)
        try:
            if self._draining:
                raise stopping()
            if why := self.closed():
                raise unavailable(f"this gateway {why}", CLOSED_S)
            if full:
                raise overloaded("this gateway is full")
            if self._metering is not None:
                self._metering.limits.admit(query)
            self._budget.deposit(time.monotonic())
            if self._is_autonomous(query) and not query.intent.constraints.choose_only:
                pending = self._answer_by_packet(query)
            else:
                if query.intent.constraints.sealed_to:
                    raise bad_request(
                        "only an autonomous query can be sealed",
                        "daitn.sealed_to",
                        fix="set autonomous too",
                    )
                self._decide(query)
                if query.intent.constraints.choose_only:
                    return self._choose(query)
                pending = self._plans.answer(query, writer)
            async with timer:
                self._timers.add(timer)
                writer.whole = partial(_stop, timer)
                response = await pending
        except ApiError as error:
            return await self._fail(query, writer, error)
        except TimeoutError:
            if writer.delivered:
                self._record(query, QueryStatus.ANSWERED, 200, "")
                return await writer.conclude()
            late = stopping() if self._cutting else deadline_passed(deadline_s or 0.0)
            return await self._fail(query, writer, late)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("query %s failed", query.id)
            return await self._fail(query, writer, internal())
        finally:
            self._timers.discard(timer)
        answered, row = response.status == 200, query.outcome.row
        if answered and row >= 0:
            self._affinity.record(query.intent, query.snapshot.rows[row].id)
        status = QueryStatus.ANSWERED if answered else QueryStatus.REFUSED
        self._record(query, status, response.status, "")
        return response

    def _is_autonomous(self, query: RequestContext) -> bool:
        requested = query.intent.constraints.autonomous
        return self._config.autonomous if requested is None else requested

    async def _answer_by_packet(self, query: RequestContext) -> Reply:
        if self._packets is None:
            raise bad_request("this gateway's node is not a forwarder", "daitn.autonomous")
        query.decision.plan = packet_plan(query.intent)
        return await answer_by_packet(self._packets, query)

    async def _fail(self, query: RequestContext, writer: ResponseWriter, error: ApiError) -> Reply:
        self._record(query, status_of(error), error.status, error.message, error.code)
        self._metrics.refused(error.code)
        return await writer.fail(error)

    def _new_query(
        self,
        request: Request,
        caller: Caller,
        parsed: ParsedRequest,
        began_s: float,
        full: bool,
    ) -> RequestContext:
        self._query_count += 1
        now_s = clock.now_s()
        topic = parsed.topic if full else self._topic(parsed)
        snapshot = self._topology.snapshot()
        header = request.headers.get(TRACEPARENT)
        span = self._tracer.begin(operation(parsed.api), SpanKind.SERVER, header)
        own = full_name(caller.owner, parsed.name)
        # A bare name means the caller's own model first.
        name = own if own in snapshot.rows_of and parsed.site is None else parsed.name
        intent = expecting(parsed.intent(self._site, caller.owner, topic, name), self._lengths)
        context = QueryContext(
            intent=intent,
            snapshot=snapshot,
            paths=permitted(self._topology.paths(snapshot), snapshot, intent.constraints),
            in_flight=self._load.of(snapshot),
            now_s=now_s,
            affinity=self._affinity.row(intent, snapshot, parsed.previous_deployment),
        )
        return RequestContext(
            id=f"{self._site}:{self._query_count}",
            asked_at_s=now_s,
            began_s=began_s,
            parsed=parsed,
            caller=caller,
            intent=intent,
            context=context,
            attempts=Attempts(context.paths),
            decision=ChosenPlan(),
            waiting=Waiting(),
            outcome=Outcome(),
            lengths=self._lengths,
            metering=self._metering,
            span=span,
            traceparent=passed_on(header),
        )

    def _topic(self, parsed: ParsedRequest) -> str:
        """The query's topic; classified only if the route depends on it."""
        if parsed.topic or (parsed.name != AUTO and parsed.constraints.min_accuracy is None):
            return parsed.topic
        topic, confidence = self._topic_of(parsed.text)
        return topic if confidence >= MIN_TOPIC_CONFIDENCE else ""

    def _count_tokens(self, caller: Caller, parsed: ParsedRequest) -> int:
        """Number of tokens by the rates of the model's first deployment, or else the usual ones."""
        snapshot, length = self._topology.snapshot(), parsed.length
        rows = snapshot.replicas(caller.owner, parsed.name)
        rates: Sequence[float] = USUAL_RATES
        if len(rows):
            rates = tuple(float(column[rows[0]]) for column in snapshot.columns.token_rates)
        return length.tokens(rates)

    def _started(self) -> Upstream:
        assert self._upstream is not None
        return self._upstream

    def _decide(self, query: RequestContext) -> None:
        seed = self._seed + self._query_count
        self._query_log.record_decision(query.id, query.context, seed)
        began_s = time.perf_counter()
        try:
            plan = self._qirce.decide(query.context, SeededDraws(seed))
        except InvalidInput as error:
            raise from_daitn_error(error, "daitn.") from None
        seconds = time.perf_counter() - began_s
        self._metrics.decision.observe(seconds)
        if query.span is not None:
            query.span.child("decide", began_s=clock.now_s() - seconds).end()
        if isinstance(plan, QueryRefusal):
            raise infeasible(plan, query.parsed.api)
        query.decision.plan = plan

    def _choose(self, query: RequestContext) -> Reply:
        """The first deployment of the plan to which a query can be sealed. Raises `ApiError`."""
        rows = query.snapshot.rows
        row = next((row for row in query.plan.rows if rows[row].facility.sealing), None)
        if row is None:
            raise unavailable("no facility that may answer opens sealed queries")
        chosen, sealing = rows[row], rows[row].facility.sealing
        assert sealing is not None
        self._record(query, QueryStatus.ANSWERED, 200, "it only chose")
        return json_response(
            {
                "object": "daitn.choice",
                "model": chosen.id,
                "owner": chosen.descriptor.owner,
                "sealing": signed_text(sealing),
                # Everything by which its owner entitles it; the rest is long.
                "deployment": structs.replace(chosen.descriptor, evidence=(), claimed={}),
            }
        )

    def _record(
        self,
        query: RequestContext,
        status: QueryStatus,
        http_status: int,
        reason: str,
        code: str = "",
    ) -> None:
        now_s, intent, outcome = clock.now_s(), query.intent, query.outcome
        if outcome.recorded:  # A client may leave while it is told how its query ended.
            return
        outcome.recorded = True
        seconds = time.perf_counter() - query.began_s
        tokens_out = None if status is QueryStatus.SHED else outcome.tokens_out
        if query.caller.relayed_by is None:
            self._demand.count(intent.topic, intent.model, tokens_out, now_s)
        answered = query.snapshot.rows[outcome.row] if outcome.row >= 0 else None
        record = QueryRecord(
            id=query.id,
            asked_at_s=query.asked_at_s,
            owner=intent.owner or query.caller.relayed_by or "",
            api=intent.api,
            model_wanted=query.parsed.model,
            topic=intent.topic,
            status=status,
            http_status=http_status,
            strategy=query.plan.strategy,
            deployment="" if answered is None else answered.name,
            site="" if answered is None else answered.site,
            path=outcome.path,
            attempts=query.attempts.count,
            hedged=query.attempts.hedged,
            overhead_s=max(0.0, seconds - query.waiting.total_s),
            first_token_s=outcome.first_token_s,
            seconds=seconds,
            tokens_in=outcome.tokens_in,
            tokens_out=outcome.tokens_out,
            cost_usd=outcome.cost_usd,
            reason=reason,
            object_id=outcome.object_id,
        )
        self._query_log.record_query(record)
        self._metrics.ended(query, record)
        if query.span is not None:
            ended(query.span, query, record, code)

    def _models(self, owner: str) -> dict[str, str]:
        """Models that can be queried now, by the shortest name that an owner may use, with their
        owners."""
        snapshot = self._topology.snapshot()
        available = snapshot.columns.available
        return {
            row.name if row.descriptor.owner == owner else row.called[-1]: row.descriptor.owner
            for index, row in enumerate(snapshot.rows)
            if available[index]
        }

    def _health(self, ready: bool) -> tuple[list[str], dict[str, object]]:
        in_flight, most = self._in_flight, self._config.max_in_flight
        full, problems = in_flight >= most, []
        still_s = time.monotonic() - self._moved_at_s
        if full and still_s >= STUCK_AFTER_S:
            problems.append(f"{in_flight} queries are in progress; none ended for {still_s:.0f} s")
        if ready and self._draining:
            problems.append("the gateway is stopping")
        if ready and (why := self.closed()):
            problems.append(f"the gateway {why}")
        if ready and full:
            problems.append(f"the gateway is full: {in_flight} queries are in progress")
        if (
            ready
            and self._packets is None
            and not self._topology.snapshot().columns.available.any()
        ):
            problems.append("no deployment is available")
        return problems, {
            "site": self._site,
            "in_flight": in_flight,
            "max_in_flight": most,
            "max_body_bytes": self._config.max_body_bytes,
            "max_answer_bytes": self._config.max_answer_bytes,
        }


def _stop(timer: asyncio.Timeout) -> None:
    """A deadline has been met; its query may still wait for its client."""
    if not timer.expired():
        timer.reschedule(None)


def _authenticator(
    site: SiteId, config: GatewayConfig, owner: str, mandates: Mandates | None
) -> Authenticator:
    if mandates is not None:
        for position, key in enumerate(config.keys):
            if key.owner != owner:
                raise InvalidInput(
                    f"a gateway of {owner} cannot issue keys of {key.owner}",
                    field=f"gateway.keys[{position}].owner",
                    fix=f"let {key.owner} make a token: `daitn token create --gateway {site}`",
                )
    return Authenticator(
        ApiKeys(config.keys),
        "" if mandates is None else owner,
        None if mandates is None else Tokens(site, mandates),
        needs_token=config.needs_token,
        clocks=(clock.wall_s, time.monotonic),
    )
