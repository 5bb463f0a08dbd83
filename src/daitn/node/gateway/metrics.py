"""Metrics of a gateway.

Names follow vLLM's and those of the Gateway API's inference extension, so that panels for them are
read alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from daitn.node.gateway.context import RequestContext
from daitn.objects.queries import AUTO, QueryRecord, QueryStatus
from daitn.openai.codes import CODES
from daitn.tools.monitoring.metrics import (
    FAST_S,
    FIRST_TOKEN_S,
    OTHER,
    REQUEST_S,
    BoundedNames,
    Histogram,
    Sample,
    counter,
    gauge,
    histogram,
)

__all__ = ["METRICS", "GatewayMetrics"]

REQUESTS: Final = counter(
    "daitn_gateway_requests_total",
    "Ended queries; without an answer, `model` is the requested one, if the network has it.",
    *("model", "api", "outcome"),
)
DURATION: Final = histogram(
    "daitn_gateway_request_duration_seconds",
    "Time from a query's arrival to the end of its answer.",
    "model",
)
FIRST_TOKEN: Final = histogram(
    "daitn_gateway_time_to_first_token_seconds",
    "Time from a query's arrival to the first piece of its answer.",
    "model",
)
OVERHEAD: Final = histogram(
    "daitn_gateway_overhead_seconds", "Time that the gateway adds to a deployment's own time."
)
DECISION: Final = histogram(
    "daitn_gateway_decision_duration_seconds", "Time that QIRCE takes to decide on a query."
)
PROMPT_TOKENS: Final = counter(
    "daitn_gateway_prompt_tokens_total", "Tokens read for answers.", "model"
)
GENERATION_TOKENS: Final = counter(
    "daitn_gateway_generation_tokens_total", "Tokens written in answers.", "model"
)
COST: Final = counter(
    "daitn_gateway_cost_usd_total", "Price of answers, at the deployments' prices.", "model"
)
ATTEMPTS: Final = counter(
    "daitn_gateway_attempts_total", "Requests to deployments, packets included."
)
RETRIES: Final = counter(
    "daitn_gateway_retries_total", "Attempts of queries beyond the first, hedges included."
)
HEDGES: Final = counter(
    "daitn_gateway_hedged_requests_total",
    "Queries for which a second deployment was asked because the first was late.",
)
FAILOVERS: Final = counter(
    "daitn_gateway_failovers_total",
    "Queries that were answered after a deployment had failed.",
)
ERRORS: Final = counter(
    "daitn_gateway_errors_total",
    "Error answers by `code`, including those to requests other than queries.",
    "code",
)
RUNNING: Final = gauge("daitn_gateway_requests_running", "Queries in progress.")
MOST_RUNNING: Final = gauge(
    "daitn_gateway_requests_running_limit",
    "Maximum number of queries in progress: `max_in_flight`.",
)
DEPLOYMENTS: Final = gauge("daitn_gateway_deployments", "Deployments that this gateway knows.")
AVAILABLE: Final = gauge(
    "daitn_gateway_deployments_available", "Known deployments that can be queried now."
)
METRICS: Final = (
    *(REQUESTS, DURATION, FIRST_TOKEN, OVERHEAD, DECISION, PROMPT_TOKENS, GENERATION_TOKENS),
    *(COST, ATTEMPTS, RETRIES, HEDGES, FAILOVERS, ERRORS, RUNNING, MOST_RUNNING, DEPLOYMENTS),
    AVAILABLE,
)

_CODES: Final = frozenset(code.code for code in CODES)


class _Model:
    """Counts of the queries that one model answered."""

    __slots__ = ("cost_usd", "duration", "first_token", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.duration = Histogram(REQUEST_S)
        self.first_token = Histogram(FIRST_TOKEN_S)
        self.tokens_in = self.tokens_out = 0
        self.cost_usd = 0.0


class GatewayMetrics:
    """The numbers of one gateway since it started."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str], int] = {}
        self._models: dict[str, _Model] = {}
        self._names = BoundedNames()
        self._overhead = Histogram(FAST_S)
        self._errors: Counter[str] = Counter()
        self._attempts = self._retries = self._hedges = self._failovers = 0
        self.decision = Histogram(FAST_S)

    def ended(self, query: RequestContext, record: QueryRecord) -> None:
        """A query ended as recorded."""
        answered = record.status is QueryStatus.ANSWERED
        model = self._names.label(record.deployment or _wanted(query))
        kind = model, record.api.value, record.status.value
        self._requests[kind] = self._requests.get(kind, 0) + 1
        attempts = record.attempts
        self._attempts += attempts
        if attempts > 1:
            self._retries += attempts - 1
            self._hedges += record.hedged
            self._failovers += answered and bool(query.attempts.failed)
        if not answered:
            return
        counted = self._models.get(model)
        if counted is None:
            counted = self._models[model] = _Model()
        counted.duration.observe(record.seconds)
        if record.first_token_s is not None:
            counted.first_token.observe(record.first_token_s)
        counted.tokens_in += record.tokens_in
        counted.tokens_out += record.tokens_out
        counted.cost_usd += record.cost_usd
        self._overhead.observe(record.overhead_s)

    def refused(self, code: str) -> None:
        """A request got an error; all codes that deployments invent count as one."""
        self._errors[code if code in _CODES else OTHER] += 1

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        for kind, count in self._requests.items():
            yield REQUESTS.at(count, *kind)
        for name, model in self._models.items():
            yield DURATION.at(model.duration, name)
            yield FIRST_TOKEN.at(model.first_token, name)
            yield PROMPT_TOKENS.at(model.tokens_in, name)
            yield GENERATION_TOKENS.at(model.tokens_out, name)
            yield COST.at(model.cost_usd, name)
        yield OVERHEAD.at(self._overhead)
        yield DECISION.at(self.decision)
        yield ATTEMPTS.at(self._attempts)
        yield RETRIES.at(self._retries)
        yield HEDGES.at(self._hedges)
        yield FAILOVERS.at(self._failovers)
        yield from ERRORS.by(self._errors, _CODES)


def _wanted(query: RequestContext) -> str:
    """The requested model: unknown names count as one."""
    name = query.intent.model
    return name if name == AUTO or name in query.snapshot.rows_of else OTHER
