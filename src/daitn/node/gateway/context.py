"""The state of one query in a gateway, and who writes each part of it.

| part | written by |
|---|---|
| the request and the decision's inputs: `id` to `context` | `Gateway`, on arrival; frozen |
| `decision` | `Gateway`, once |
| `attempts` | the failover machines; `answer_by_packet` for an autonomous query |
| `waiting` | itself |
| `outcome`: what was charged | `RequestContext.charge`, which counts it too |
| `outcome`: whether it is recorded | `Gateway`, once |
| the rest of `outcome` | `ResponseWriter`; `answer_by_packet` for an autonomous query |
"""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from daitn.control.queries.attempts import Attempts
from daitn.control.queries.context import QueryContext, QueryPlan
from daitn.control.queries.lengths import LengthModel
from daitn.node.gateway.request import ParsedRequest
from daitn.objects.accounts import Charged
from daitn.objects.grants import UseLimits, full_name
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, Strategy
from daitn.tools.monitoring.tracing import Span
from daitn.topology.qrrt.snapshot import Paths, Qrrt

__all__ = ["AskingKey", "Caller", "ChosenPlan", "Outcome", "RequestContext", "Waiting", "price_usd"]

_UNDECIDED = QueryPlan(strategy=Strategy.SINGLE, rows=())


class AskingKey(msgspec.Struct, frozen=True):
    """The key or token of a query."""

    secret: str
    """Digest of its secret."""
    limits: UseLimits
    until_s: float
    """When it expires, in seconds since the epoch."""
    gateways: int = 1
    """Number of gateways that accept it: its money limit applies to all together."""


class Caller(msgspec.Struct, frozen=True):
    """Who sent the query. A relayed query keeps its id and its time."""

    owner: str
    relayed_by: SiteId | None = None
    mandate: str = ""
    """Proof that the owner lets this gateway, or the one that relays, query in its name."""
    origin_pass: str = ""
    """The relaying gateway's pass for the facility."""
    query: str = ""
    asked_at: str = ""
    key: AskingKey | None = None
    """`None` means no key, or a relayed query."""


class ChosenPlan(msgspec.Struct):
    """The plan; without rows until decided, and for an autonomous query."""

    plan: QueryPlan = _UNDECIDED


class Waiting(msgspec.Struct):
    """Time spent waiting for deployments; the rest is the gateway's overhead. Use it as a context
    manager, not nested: parallel waits count as one."""

    total_s: float = 0.0
    since_s: float = 0.0

    def __enter__(self) -> None:
        self.since_s = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        self.total_s += time.perf_counter() - self.since_s


class Outcome(msgspec.Struct):
    """The answer returned, and its cost."""

    row: int = -1
    """Row of the deployment whose answer is returned; -1 means none, or one unknown here."""
    path: tuple[str, ...] = ()
    """Sites on the path of the answer."""
    object_id: str = ""
    """The packet's id, for an autonomous query."""
    first_token_s: float | None = None
    """From the query's arrival to the first piece of the answer."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    recorded: bool = False
    """Whether the query has ended, and its record is written."""


class CountsAnswers(Protocol):
    """Counts charged answers, so that a crash loses none."""

    def count(self, caller: Caller, charged: Charged) -> None: ...


class RequestContext(msgspec.Struct, frozen=True):
    """The state of a query. Its parts change; the struct itself does not."""

    id: str
    """`<gateway's site>:<number>`"""
    asked_at_s: float
    began_s: float
    """On the clock of `time.perf_counter`, like all `*_s` that name no other."""
    parsed: ParsedRequest
    caller: Caller
    intent: QueryIntent
    context: QueryContext
    attempts: Attempts
    decision: ChosenPlan
    waiting: Waiting
    outcome: Outcome
    lengths: LengthModel
    metering: CountsAnswers | None = None
    """`None` means nothing is counted."""
    span: Span | None = None
    """Present if the query is traced."""
    traceparent: str = ""
    """As sent by the client, to pass on to deployments; empty if there was none."""

    @property
    def snapshot(self) -> Qrrt:
        return self.context.snapshot

    @property
    def plan(self) -> QueryPlan:
        return self.decision.plan

    @property
    def paths(self) -> Paths:
        return self.attempts.paths

    def charge(self, row: int | None, tokens_in: int, tokens_out: int) -> None:
        """Charge and count an answer of `row`, whether returned or only compared, and learn from
        its length; `None` means a deployment unknown here, whose price and owner are unknown too.

        Do this before the client has the whole answer, so that a gateway killed at any moment has
        counted what it delivered.
        """
        outcome = self.outcome
        outcome.tokens_in += tokens_in
        outcome.tokens_out += tokens_out
        if row is not None:
            outcome.cost_usd += price_usd(self.snapshot, row, tokens_in, tokens_out)
            answered = self.snapshot.rows[row]
            stated = answered.descriptor
            if self.metering is not None:
                charged = Charged(
                    full_name(stated.owner, stated.name),
                    answered.site,
                    stated.price_usd_per_1k_in,
                    stated.price_usd_per_1k_out,
                    tokens_in,
                    tokens_out,
                )
                self.metering.count(self.caller, charged)
        self.lengths.learn(self.intent, tokens_out // max(1, self.parsed.choices))

    def relay(self, row: int) -> SiteId | None:
        """The gateway that relays to a row, if any; a relayed query is not relayed again."""
        return None if self.caller.relayed_by is not None else self.attempts.paths.via(row)

    def path_to(self, row: int) -> tuple[str, ...]:
        """Sites from this gateway to the row's facility."""
        site, relay = self.snapshot.rows[row].site, self.relay(row)
        stops = (self.intent.origin, *(() if relay is None else (relay,)), site)
        return tuple(dict.fromkeys(stops))


def price_usd(snapshot: Qrrt, row: int, tokens_in: int, tokens_out: float) -> float:
    """The price of an answer."""
    columns = snapshot.columns
    return float(columns.price_in[row] * tokens_in + columns.price_out[row] * tokens_out)
