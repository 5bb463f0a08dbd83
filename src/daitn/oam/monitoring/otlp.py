"""Spans as OTLP's protocol buffers. Needs the extra `traces`.

The SDK's own encoder takes four times as long. Gateways end spans on the event loop that answers
queries, so that this time is missing there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from daitn import __version__
from daitn.tools.monitoring.tracing import Attribute, Span, SpanKind

__all__ = ["SpanEncoder"]

_KINDS: Final = {kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind}") for kind in SpanKind}
_FLAGS: Final = 0x101
"""Sampled, and known not to be remote."""
_MOST_INT: Final = 2**63 - 1
_MOST_CACHED: Final = 1024
"""Most attributes have one of few values: names of models, sites and states."""


class SpanEncoder:
    """Encodes the spans of one process."""

    def __init__(self, *, kind: str, site: str) -> None:
        """`kind` and `site` identify the process, see `MetricsServer`."""
        described: dict[str, Attribute] = {
            "service.name": f"daitn-{kind}",
            "service.namespace": "daitn",
            "service.instance.id": site,
            "service.version": __version__,
        }
        self._resource = Resource(attributes=_attributes(described))
        self._scope = InstrumentationScope(name="daitn", version=__version__)

    def request(self, spans: Iterable[Span]) -> bytes:
        """The body of a request to a collector."""
        made = [_span(span) for span in spans]
        scoped = trace_pb2.ScopeSpans(scope=self._scope, spans=made)
        resource = trace_pb2.ResourceSpans(resource=self._resource, scope_spans=[scoped])
        body: bytes = ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()
        return body


def _span(span: Span) -> trace_pb2.Span:
    trace_id, span_id = span.context
    made = trace_pb2.Span(
        trace_id=trace_id.to_bytes(16, "big"),
        span_id=span_id.to_bytes(8, "big"),
        parent_span_id=b"" if span.parent is None else span.parent.to_bytes(8, "big"),
        flags=_FLAGS,
        name=_text(span.name),
        kind=_KINDS[span.kind],
        start_time_unix_nano=int(span.began_s * 1e9),
        end_time_unix_nano=int(span.ended_s * 1e9),
        attributes=_attributes(span.attributes),
    )
    if span.error:
        made.attributes.append(_attribute("error.type", span.error))
        made.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    return made


def _attributes(attributes: dict[str, Attribute]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=_value(value))
        if isinstance(value, list)
        else _attribute(key, value)
        for key, value in attributes.items()
    ]


@lru_cache(_MOST_CACHED, typed=True)
def _attribute(key: str, value: str | float) -> KeyValue:
    return KeyValue(key=key, value=_value(value))


def _value(value: Attribute) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=_text(value))
        case int() if abs(value) <= _MOST_INT:
            return AnyValue(int_value=value)
        case int():
            return AnyValue(string_value=str(value))
        case float():
            return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))


def _text(value: str) -> str:
    """Strangers' texts, for instance names of models, may contain what UTF-8 cannot."""
    return value if value.isascii() else value.encode(errors="replace").decode()
