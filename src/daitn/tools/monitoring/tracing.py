"""Spans of traces across several processes, in OpenTelemetry's terms.

A query's trace goes from hop to hop as a `traceparent` header (W3C Trace Context,
https://www.w3.org/TR/trace-context/). All work for a job belongs to one trace, whose ids follow
from the job's: anyone who knows the job knows them, and no message has to carry them.

Gateways begin traces, and everybody continues those that are marked as sampled: the sampling is
parent-based. What is not sampled costs a gateway one random number.
"""

from __future__ import annotations

import enum
import hashlib
import random
import re
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple

from daitn.tools import clock

__all__ = ["OFF", "TRACEPARENT", "Attribute", "Context", "Span", "SpanKind", "Tracer", "passed_on"]

TRACEPARENT: Final = "traceparent"
"""Name of the header."""
Attribute = str | int | float | bool | list[str]
"""Type of a span's attribute."""

_HEADER = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_SAMPLED = 1


class SpanKind(enum.StrEnum):
    """OpenTelemetry's kinds of spans."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    """It answers a request."""
    CLIENT = "CLIENT"
    """It makes one."""
    PRODUCER = "PRODUCER"
    """It orders work for later."""
    CONSUMER = "CONSUMER"
    """It does such work."""


class Context(NamedTuple):
    """Identifies a span."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """64 bits, not 0."""

    @property
    def traceparent(self) -> str:
        """The header for continuing this sampled trace elsewhere."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


class Span:
    """One step of a trace. As a context manager, it ends with the block, and keeps its error."""

    __slots__ = (
        "_tracer",
        "attributes",
        "began_s",
        "context",
        "ended_s",
        "error",
        "kind",
        "name",
        "parent",
    )

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        kind: SpanKind,
        context: Context,
        parent: int | None,
        began_s: float,
    ) -> None:
        """`parent`: the id of the span above it. `began_s`: seconds since the epoch."""
        self._tracer = tracer
        self.name = name
        self.kind = kind
        self.context = context
        self.parent = parent
        self.began_s = began_s
        self.ended_s = began_s
        self.attributes: dict[str, Attribute] = {}
        self.error = ""
        """A word for the error; empty if there is none."""

    def child(
        self, name: str, kind: SpanKind = SpanKind.INTERNAL, began_s: float | None = None
    ) -> Span:
        """Begin a step of this one, now or at `began_s`."""
        return self._tracer.below(self.context, name, kind, began_s)

    def end(self, error: str = "", ended_s: float | None = None) -> None:
        """End it, now or at `ended_s`, and export it. A span ends once."""
        self.error = error
        self.ended_s = clock.now_s() if ended_s is None else ended_s
        self._tracer.export(self)

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end("" if kind is None else kind.__name__)


class Tracer:
    """Makes the spans of one process."""

    def __init__(
        self,
        ratio: float = 0.0,
        export: Callable[[Span], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`ratio`: the share of the queries without a parent that are traced. `export` takes
        finished spans, on the thread that ended them; `None` means nothing is traced."""
        self._ratio = ratio if export else 0.0
        self._export = export
        # S311: ids must be distinct, but not secret.
        self._rng = rng or random.Random()  # noqa: S311

    @property
    def on(self) -> bool:
        """Whether anything is traced."""
        return self._export is not None

    def begin(self, name: str, kind: SpanKind, header: str | None) -> Span | None:
        """Continue the trace of a `traceparent` header that marks it as sampled, or begin one
        without a header; none if it is not sampled."""
        if header and _HEADER.fullmatch(header):
            return self.resume(name, kind, header)
        if self._rng.random() >= self._ratio:
            return None
        trace_id = self._rng.getrandbits(128) or 1
        return Span(self, name, kind, Context(trace_id, self._span_id()), None, clock.now_s())

    def resume(self, name: str, kind: SpanKind, header: str) -> Span | None:
        """Continue the trace of a `traceparent` header; none without a sampled one."""
        if self._export is None or (parent := _sampled(header)) is None:
            return None
        return self.below(parent, name, kind)

    def of_job(
        self, job: str, order: str, name: str, kind: SpanKind = SpanKind.CONSUMER
    ) -> Span | None:
        """Begin a step of a job's trace. `order`: the digest of its owner's order, if it has
        one."""
        return None if self._export is None else self.below(_job(job, order), name, kind)

    def job(self, job: str, order: str, began_s: float) -> Span | None:
        """The span of a whole job, the parent of those of `of_job`."""
        if self._export is None:
            return None
        return Span(self, f"job {job}", SpanKind.PRODUCER, _job(job, order), None, began_s)

    def below(
        self, parent: Context, name: str, kind: SpanKind, began_s: float | None = None
    ) -> Span:
        """Begin a step of any span."""
        context = Context(parent.trace_id, self._span_id())
        began_s = clock.now_s() if began_s is None else began_s
        return Span(self, name, kind, context, parent.span_id, began_s)

    def export(self, span: Span) -> None:
        """Export a finished span."""
        if self._export is not None:
            self._export(span)

    def _span_id(self) -> int:
        return self._rng.getrandbits(64) or 1


OFF: Final = Tracer()
"""Traces nothing."""


def passed_on(header: str | None) -> str:
    """The `traceparent` header to pass on from a process that does not trace: unchanged, or empty
    if malformed."""
    return header if header and _HEADER.fullmatch(header) else ""


def _sampled(header: str) -> Context | None:
    found = _HEADER.fullmatch(header)
    if found is None or not int(found[3], 16) & _SAMPLED:
        return None
    return Context(int(found[1], 16), int(found[2], 16))


def _job(job: str, order: str) -> Context:
    digest = hashlib.sha256(f"daitn job\n{order}\n{job}".encode()).digest()
    return Context(
        int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1
    )
