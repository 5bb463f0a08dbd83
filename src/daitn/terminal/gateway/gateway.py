"""The gateway role: OpenAI's API in front of the network.

A query is read, held against the QRRT by QIRCE, asked of the deployments that the plan names, and
its answer passed on. Nothing of a query's text is kept.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import zlib
from collections.abc import Callable

from daitn.control.queries.context import QueryContext, Refusal
from daitn.control.queries.engine import Qirce
from daitn.identity.keys import SigningKey
from daitn.objects.decisions import Decision
from daitn.objects.deployments import GatewayDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand
from daitn.objects.queries import AUTO, QueryRecord, QueryStatus
from daitn.terminal.config import GatewayConfig
from daitn.terminal.gateway.affinity import Affinity
from daitn.terminal.gateway.asked import Asked
from daitn.terminal.gateway.course import Caller, Course
from daitn.terminal.gateway.delivery import Delivery
from daitn.terminal.gateway.demand import DemandMeter
from daitn.terminal.gateway.door import Door
from daitn.terminal.gateway.records import Draws, Records
from daitn.terminal.gateway.refusals import (
    deadline_passed,
    internal,
    not_feasible,
    overloaded,
    status_of,
)
from daitn.terminal.gateway.retries import RetryBudget
from daitn.terminal.gateway.search import Asking
from daitn.terminal.gateway.steered import Packets, by_packet
from daitn.terminal.gateway.strategies import Strategies
from daitn.terminal.gateway.topology import Topology
from daitn.terminal.gateway.upstream import Upstream
from daitn.terminal.http import Reply, Request
from daitn.terminal.openai_api import ApiError, bad_request, of_error
from daitn.topology.qrrt.load import Load
from daitn.topology.qrrt.paths import permitted

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

GC_EVERY = (10_000, 20, 20)
"""New objects per look for cycles among them, and looks per look among the older ones."""
TOPIC_SURE = 0.5
"""A topic that is found with less confidence is more likely wrong than right."""


class Gateway:
    """A site's entry for queries. `await start()` returns when it listens."""

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
    ) -> None:
        """`admit` says whose pass is shown (seconds since the epoch), or raises `Refused`.
        `topic_of` says what a text is about, and how sure that is, in [0, 1]. `packets` takes
        queries that find their own way; none: this node is no forwarder. `tls`: folder with the
        certificates for addresses that begin with `https://`."""
        self._site = site
        self._config = config
        self._topology = topology
        self._key = key
        self._topic_of = topic_of
        self._packets = packets
        self._tls = tls
        self._qirce = Qirce()
        self._records = Records(self._qirce)
        self._demand = DemandMeter(site)
        self._affinity = Affinity()
        self._load = Load()
        self._budget = RetryBudget()
        self._door = Door(config, tls, admit, self._serve, self._models, self._health)
        self._seed = zlib.crc32(site.encode()) << 32
        self._number = 0
        self._under_way = 0
        self._upstream: Upstream | None = None
        self._strategies: Strategies | None = None

    async def start(self) -> None:
        """Raises `InvalidInput` where it cannot listen as its file says."""
        self._upstream = Upstream(self._site, self._key, self._load, self._tls)
        asking = Asking(self._upstream, self._topology, self._budget)
        self._strategies = Strategies(asking, self._load)
        await self._door.start()
        # What is there now is there to stay, and little that a query leaves behind is a cycle:
        # looking for cycles after every 700 new objects took a tenth of the gateway's time.
        gc.freeze()
        gc.set_threshold(*GC_EVERY)

    async def close(self) -> None:
        """Take nothing new, and leave shortly after."""
        await self._door.close()
        if self._upstream is not None:
            self._upstream.close()

    def descriptor(self) -> GatewayDescriptor:
        """What the node's advert says of it, once it listens."""
        return GatewayDescriptor(endpoint=self._config.advertise or self._door.url)

    def demand(self, now_s: float) -> Demand:
        """What is asked here, smoothed."""
        return self._demand.demand(now_s)

    def queries(self, limit: int) -> tuple[QueryRecord, ...]:
        """How the latest queries were served, newest first."""
        return self._records.latest(limit)

    def explain(self, id_: str) -> tuple[QueryRecord, Decision]:
        """How a query was served, and why so. Raises `NotFound`."""
        return self._records.explain(id_)

    async def _serve(self, request: Request, caller: Caller, asked: Asked, began_s: float) -> Reply:
        full = self._under_way >= self._config.max_in_flight
        course = self._course(caller, asked, began_s, full)
        delivery = Delivery(request, course, self._topology)
        self._under_way += 1
        try:
            response = await self._answered(course, delivery, full)
        except (asyncio.CancelledError, ConnectionError):
            self._ended(course, QueryStatus.ABANDONED, 499, "its owner went away")
            raise
        finally:
            self._under_way -= 1
        return response

    async def _answered(self, course: Course, delivery: Delivery, full: bool) -> Reply:
        assert self._strategies is not None
        deadline_s = course.intent.wishes.deadline_s
        try:
            if full:
                raise overloaded("this gateway has as many queries under way as it takes")
            self._budget.asked(time.monotonic())
            if self._finds_its_way(course):
                answering = self._by_packet(course)
            else:
                if course.intent.wishes.sealed_to:
                    raise bad_request(
                        "only a query that finds its own way is sealed",
                        "daitn.sealed_to",
                        fix="wish autonomous too",
                    )
                self._decide(course)
                answering = self._strategies.answer(course, delivery)
            if deadline_s is None:
                response = await answering
            else:
                async with asyncio.timeout(deadline_s):
                    response = await answering
        except ApiError as error:
            return await self._failed(course, delivery, error)
        except TimeoutError:
            return await self._failed(course, delivery, deadline_passed(deadline_s or 0.0))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("query %s failed", course.id)
            return await self._failed(course, delivery, internal())
        answered = response.status == 200
        if answered and course.row >= 0:
            self._affinity.answered(course.intent, course.deployed.id)
        status = QueryStatus.ANSWERED if answered else QueryStatus.REFUSED
        self._ended(course, status, response.status, "")
        return response

    def _finds_its_way(self, course: Course) -> bool:
        wished = course.intent.wishes.autonomous
        return self._config.autonomous if wished is None else wished

    async def _by_packet(self, course: Course) -> Reply:
        if self._packets is None:
            raise bad_request("this gateway's node is no forwarder", "daitn.autonomous")
        return await by_packet(self._packets, course)

    async def _failed(self, course: Course, delivery: Delivery, error: ApiError) -> Reply:
        self._ended(course, status_of(error), error.status, error.message)
        return await delivery.fail(error)

    def _course(self, caller: Caller, asked: Asked, began_s: float, full: bool) -> Course:
        self._number += 1
        now_s = time.time()
        topic = asked.topic if full else self._topic(asked)
        intent = asked.intent(self._site, caller.owner, topic)
        snapshot = self._topology.snapshot()
        context = QueryContext(
            intent=intent,
            snapshot=snapshot,
            paths=permitted(self._topology.paths(snapshot), snapshot, intent),
            in_flight=self._load.of(snapshot),
            now_s=now_s,
            affinity=self._affinity.row(intent, snapshot),
        )
        return Course(
            id=f"{self._site}:{self._number}",
            asked_at_s=now_s,
            began_s=began_s,
            asked=asked,
            caller=caller,
            intent=intent,
            context=context,
            paths=context.paths,
        )

    def _topic(self, asked: Asked) -> str:
        """What the query is about; found out only where the route depends on it."""
        if asked.topic or (asked.name != AUTO and asked.wishes.min_accuracy is None):
            return asked.topic
        topic, sure = self._topic_of(asked.text)
        return topic if sure >= TOPIC_SURE else ""

    def _decide(self, course: Course) -> None:
        seed = self._seed + self._number
        self._records.decided(course.id, course.context, seed)
        try:
            plan = self._qirce.decide(course.context, Draws(seed))
        except InvalidInput as error:
            raise of_error(error, "daitn.") from None
        if isinstance(plan, Refusal):
            raise not_feasible(plan)
        course.plan = plan

    def _ended(self, course: Course, status: QueryStatus, http_status: int, reason: str) -> None:
        now_s, intent = time.time(), course.intent
        seconds = time.perf_counter() - course.began_s
        tokens_out = None if status is QueryStatus.SHED else course.tokens_out
        if course.caller.relayed_by is None:
            self._demand.count(intent.topic, intent.model, tokens_out, now_s)
        answered = course.deployed if course.row >= 0 else None
        self._records.ended(
            QueryRecord(
                id=course.id,
                asked_at_s=course.asked_at_s,
                owner=intent.owner,
                api=intent.api,
                model_wanted=course.asked.model,
                topic=intent.topic,
                status=status,
                http_status=http_status,
                strategy=course.plan.strategy,
                deployment="" if answered is None else answered.name,
                site="" if answered is None else answered.site,
                path=course.path,
                attempts=course.attempts,
                hedged=course.hedged,
                overhead_s=max(0.0, seconds - course.away_s),
                first_token_s=course.first_token_s,
                seconds=seconds,
                tokens_in=course.tokens_in,
                tokens_out=course.tokens_out,
                cost_usd=course.cost_usd,
                reason=reason,
                object_id=course.object_id,
            )
        )

    def _models(self) -> dict[str, str]:
        """Names of models that answer now, with their owners."""
        snapshot = self._topology.snapshot()
        there = snapshot.columns.there
        return {
            row.name: row.descriptor.owner
            for index, row in enumerate(snapshot.rows)
            if there[index]
        }

    def _health(self) -> dict[str, object]:
        return {"status": "ok", "site": self._site, "in_flight": self._under_way}
