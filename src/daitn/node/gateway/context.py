"""One query on its way through a gateway: what is known of it, and who writes what of that.

| part | written by |
|---|---|
| the request and what is decided on: `id` to `context` | `Gateway`, as it comes; frozen |
| `decision` | `Gateway`, once |
| `attempts` | the failover machines; `by_packet` where the query finds its own way |
| `waiting` | itself |
| `outcome` | whoever answers: `ResponseWriter`; `by_packet` where the query finds its own way |
"""

from __future__ import annotations

import time

import msgspec

from daitn.control.queries.attempts import Attempts
from daitn.control.queries.context import QueryContext, QueryPlan
from daitn.node.gateway.request import ParsedRequest
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, Strategy
from daitn.topology.qrrt.snapshot import Paths, Qrrt

__all__ = ["Caller", "Decided", "Outcome", "RequestContext", "Waiting", "price_usd"]

_UNDECIDED = QueryPlan(strategy=Strategy.SINGLE, rows=())


class Caller(msgspec.Struct, frozen=True):
    """Who asks. A query that another gateway relays keeps the id and the time that it has."""

    owner: str
    relayed_by: SiteId | None = None
    query: str = ""
    asked_at: str = ""


class Decided(msgspec.Struct):
    """What was decided; a plan without rows before, and where a query finds its own way."""

    plan: QueryPlan = _UNDECIDED


class Waiting(msgspec.Struct):
    """Time that is spent waiting for deployments: all other time is the gateway's own. Who waits
    for one does so `with` it, one at a time: those that go on side by side are one wait."""

    total_s: float = 0.0
    since_s: float = 0.0

    def __enter__(self) -> None:
        self.since_s = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        self.total_s += time.perf_counter() - self.since_s


class Outcome(msgspec.Struct):
    """What was answered, and charged."""

    row: int = -1
    """Whose answer is given; -1: nobody's, or of a deployment that is not known here."""
    path: tuple[str, ...] = ()
    """By which the answer that is given came."""
    object_id: str = ""
    """Of the packet, where the query found its own way."""
    first_token_s: float | None = None
    """From the query's arrival to the first piece of the answer."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0

    def charge(self, snapshot: Qrrt, row: int | None, tokens_in: int, tokens_out: int) -> None:
        """Count an answer of `row`, given or only compared; none: of a deployment that is not
        known here, nor what it costs."""
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        if row is not None:
            self.cost_usd += price_usd(snapshot, row, tokens_in, tokens_out)


class RequestContext(msgspec.Struct, frozen=True):
    """What is known of the query so far. Its parts change as the query goes on."""

    id: str
    """`<gateway's site>:<number>`"""
    asked_at_s: float
    began_s: float
    """On the clock of `time.perf_counter`, as all `*_s` that name no other."""
    parsed: ParsedRequest
    caller: Caller
    intent: QueryIntent
    context: QueryContext
    attempts: Attempts
    decision: Decided
    waiting: Waiting
    outcome: Outcome

    @property
    def snapshot(self) -> Qrrt:
        return self.context.snapshot

    @property
    def plan(self) -> QueryPlan:
        return self.decision.plan

    @property
    def paths(self) -> Paths:
        return self.attempts.paths

    def relay(self, row: int) -> SiteId | None:
        """The gateway through which a row is asked; a relayed query is not relayed again."""
        return None if self.caller.relayed_by is not None else self.attempts.paths.via(row)

    def path_to(self, row: int) -> tuple[str, ...]:
        """Sites from this gateway to the row's facility."""
        site, relay = self.snapshot.rows[row].site, self.relay(row)
        stops = (self.intent.origin, *(() if relay is None else (relay,)), site)
        return tuple(dict.fromkeys(stops))


def price_usd(snapshot: Qrrt, row: int, tokens_in: int, tokens_out: int) -> float:
    """What a row takes for an answer."""
    columns = snapshot.columns
    return float(columns.price_in[row] * tokens_in + columns.price_out[row] * tokens_out)
