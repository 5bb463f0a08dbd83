"""The spans of a query at its gateway."""

from __future__ import annotations

from daitn.node.gateway.context import RequestContext
from daitn.node.openai_http.tracing import operation, request_attributes
from daitn.objects.queries import QueryRecord, QueryStatus
from daitn.tools.monitoring.tracing import Span, SpanKind

__all__ = ["attempt", "ended"]


def attempt(query: RequestContext, row: int) -> Span | None:
    """The span of a request to a deployment; none if the query is not traced."""
    if query.span is None:
        return None
    api, deployment = query.parsed.api, query.snapshot.rows[row]
    span = query.span.child(f"{operation(api)} {deployment.name}", SpanKind.CLIENT)
    span.attributes |= request_attributes(api, deployment.name)
    span.attributes["daitn.site"] = deployment.site
    return span


def ended(span: Span, query: RequestContext, record: QueryRecord, code: str) -> None:
    """End the span of a query with the data of its record; `code`: that of its error."""
    attributes = span.attributes
    attributes |= request_attributes(record.api, query.intent.model)
    attributes |= {
        "http.response.status_code": record.http_status,
        "daitn.query.id": record.id,
        "daitn.outcome": record.status.value,
        "daitn.strategy": record.strategy.value,
        "daitn.attempts": record.attempts,
        "daitn.hedged": record.hedged,
        "daitn.overhead_seconds": record.overhead_s,
    }
    if record.deployment:
        attributes |= {
            "gen_ai.response.model": record.deployment,
            "gen_ai.usage.input_tokens": record.tokens_in,
            "gen_ai.usage.output_tokens": record.tokens_out,
            "daitn.site": record.site,
            "daitn.path": list(record.path),
            "daitn.cost_usd": record.cost_usd,
        }
    if record.first_token_s is not None:
        attributes["daitn.time_to_first_token_seconds"] = record.first_token_s
    if record.object_id:
        attributes["daitn.object.id"] = record.object_id
    answered = record.status is QueryStatus.ANSWERED
    span.end("" if answered else code or record.status.value)
