"""The spans of a packet: the answering site reports its path, from the packet's own trace.

Forwarders on the way need no part in this, and cannot read what is sealed.
"""

from __future__ import annotations

from itertools import pairwise

from daitn.steering.wire.packet import Hop, Packet
from daitn.tools import clock
from daitn.tools.monitoring.tracing import Span, SpanKind, Tracer

__all__ = ["traced"]


def traced(tracer: Tracer, traceparent: str, packet: Packet) -> Span | None:
    """Begin the span of an object that is served here, and report those of its hops; none if it is
    not traced."""
    span = tracer.resume("serve packet", SpanKind.CONSUMER, traceparent)
    if span is None:
        return None
    span.attributes["daitn.object.id"] = packet.object_id.hex()
    now_s, hops = clock.now_s(), packet.hops()
    moments_s = [*(_at_s(hop, now_s) for hop in hops), now_s]
    for hop, (at_s, left_s) in zip(hops, pairwise(moments_s), strict=True):
        hop_span = tracer.resume(f"hop {hop.site}", SpanKind.INTERNAL, traceparent)
        assert hop_span is not None
        hop_span.began_s = at_s
        hop_span.attributes |= {"daitn.site": hop.site, "daitn.hop.action": hop.action.name.lower()}
        hop_span.end(ended_s=max(at_s, left_s))
    return span


def _at_s(hop: Hop, now_s: float) -> float:
    """When it was there: the latest such moment, as traces have times modulo 2^32 ms."""
    now_ms = int(now_s * 1000)
    late_ms = (now_ms - hop.at_ms + (1 << 31)) % (1 << 32) - (1 << 31)
    return now_s - late_ms / 1000
