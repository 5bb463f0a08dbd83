"""Sends spans to an OpenTelemetry collector, by OTLP over HTTP. Needs the extra `traces`."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from daitn import __version__
from daitn.tools.monitoring.tracing import Context, Span

__all__ = ["SpanSender"]

SEND_TIMEOUT_S = 5.0
_PATH = "/v1/traces"
"""Of collectors, below the endpoint."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_KINDS = {kind.name: kind for kind in SpanKind}


class SpanSender:
    """Sends in batches, on a thread. A collector that takes none costs spans and nothing else."""

    def __init__(self, endpoint: str, *, kind: str, site: str) -> None:
        """`kind` and `site`: which process this is, see `MetricsServer`."""
        self._resource = Resource.create(
            {
                "service.name": f"daitn-{kind}",
                "service.namespace": "daitn",
                "service.instance.id": site,
                "service.version": __version__,
            }
        )
        address = endpoint.rstrip("/").removesuffix(_PATH) + _PATH
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=address, timeout=SEND_TIMEOUT_S)
        )

    def send(self, span: Span) -> None:
        """Put a span that has ended into the next batch."""
        context, parent = span.context, None
        if span.parent is not None:
            parent = _context(Context(context.trace_id, span.parent))
        if span.error:
            span.attributes["error.type"] = span.error
        self._processor.on_end(
            ReadableSpan(
                span.name,
                _context(context),
                parent,
                self._resource,
                span.attributes,
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
                start_time=int(span.began_s * 1e9),
                end_time=int(span.ended_s * 1e9),
            )
        )

    def close(self) -> None:
        """Send what is left; takes a while where the collector does not answer."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _context(context: Context) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, is_remote=False, trace_flags=_SAMPLED)
