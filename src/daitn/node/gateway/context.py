"""One query on its way through a gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from daitn.control.queries.context import QueryContext, QueryPlan
from daitn.node.gateway.request import ParsedRequest
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, Strategy
from daitn.topology.qrrt.snapshot import Deployed, Paths, Qrrt

__all__ = ["Caller", "RequestContext"]

_UNDECIDED = QueryPlan(strategy=Strategy.SINGLE, rows=())


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. A query that another gateway relays keeps the id and the time that it has."""

    owner: str
    relayed_by: SiteId | None = None
    query: str = ""
    asked_at: str = ""


@dataclass(slots=True)
class RequestContext:
    """What is known of the query so far; it changes as the query goes on."""

    id: str
    """`<gateway's site>:<number>`"""
    asked_at_s: float
    began_s: float
    """On the clock of `time.perf_counter`, as all `*_s` below that name no other."""
    parsed: ParsedRequest
    caller: Caller
    intent: QueryIntent
    context: QueryContext
    paths: Paths
    """Those of the context, or newer ones where a site turned out to be unreachable."""
    plan: QueryPlan = _UNDECIDED
    attempts: int = 0
    hedged: bool = False
    away_s: float = 0.0
    """Time that was spent waiting for deployments."""
    row: int = -1
    """Whose answer is given."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    first_token_s: float | None = None
    """From the query's arrival to the first piece of the answer."""
    path: tuple[str, ...] = ()
    """By which the answer that is given came."""
    object_id: str = ""
    """Of the packet, where the query finds its own way."""
    failed: set[int] = field(default_factory=set)
    """Rows that were tried and failed."""

    @property
    def snapshot(self) -> Qrrt:
        return self.context.snapshot

    @property
    def deployed(self) -> Deployed:
        """The deployment whose answer is given."""
        return self.snapshot.rows[self.row]

    def relay(self, row: int) -> SiteId | None:
        """The gateway through which a row is asked; a relayed query is not relayed again."""
        at = int(self.paths.relay[row])
        return None if at < 0 or self.caller.relayed_by is not None else self.paths.relays[at]

    def path_to(self, row: int) -> tuple[str, ...]:
        """Sites from this gateway to the row's facility."""
        site, relay = self.snapshot.rows[row].site, self.relay(row)
        stops = (self.intent.origin, *(() if relay is None else (relay,)), site)
        return tuple(dict.fromkeys(stops))

    def charge(self, row: int | None, tokens_in: int, tokens_out: int) -> None:
        """Count an answer of `row`, given or only compared; none: of a deployment that is not
        known here, nor what it costs."""
        columns = self.snapshot.columns
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        if row is None:
            return
        self.cost_usd += float(
            columns.price_in[row] * tokens_in + columns.price_out[row] * tokens_out
        )
