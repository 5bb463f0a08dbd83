"""Metrics of a forwarder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daitn.objects.steering import ForwarderReport
from daitn.steering.commands import DropCause
from daitn.tools.monitoring.metrics import Histogram, Sample, counter, gauge, histogram

__all__ = ["HOPS", "METRICS", "measured"]

PACKETS: Final = counter(
    "daitn_forwarder_packets_total",
    "Packets `received` from neighbours, `sent` to them, `delivered` at this site, or `returned` "
    "to it as answers and refusals.",
    "event",
)
DROPS: Final = counter(
    "daitn_forwarder_packets_dropped_total", "Dropped packets, by reason.", "reason"
)
HOPS_TAKEN: Final = histogram(
    "daitn_forwarder_hops", "Sites on the path of an object delivered here."
)
PENDING: Final = gauge(
    "daitn_forwarder_pending_entries",
    "Objects that the forwarder remembers, including answered ones.",
)
SUMMARIES: Final = counter(
    "daitn_forwarder_summaries_total", "Capability summaries sent to neighbours."
)
ORIGINS: Final = gauge("daitn_forwarder_origins", "Sites whose offers are reachable.")
LINK_UP: Final = gauge("daitn_forwarder_link_up", "1 if a link is up, else 0.", "neighbour")
LINK_COST: Final = gauge(
    "daitn_forwarder_link_delay_seconds", "One-way delay of a link.", "neighbour"
)
LINK_MESSAGES: Final = counter(
    "daitn_forwarder_link_messages_total", "Messages over a link.", *("neighbour", "direction")
)
LINK_DROPPED: Final = counter(
    "daitn_forwarder_link_dropped_total",
    "Messages dropped because a link's queue was full.",
    "neighbour",
)
METRICS: Final = (
    *(PACKETS, DROPS, HOPS_TAKEN, PENDING, SUMMARIES, ORIGINS, LINK_UP, LINK_COST, LINK_MESSAGES),
    LINK_DROPPED,
)
HOPS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 32.0)
"""Buckets."""
_EVENTS: Final = ("received", "sent", "delivered", "returned")


def measured(report: ForwarderReport, drops: dict[str, int], hops: Histogram) -> Iterator[Sample]:
    """See `Measured`."""
    counts = report.counts
    for event in _EVENTS:
        yield PACKETS.at(counts.get(event, 0), event)
    yield from DROPS.by(drops, DropCause)
    yield HOPS_TAKEN.at(hops)
    yield PENDING.at(report.objects)
    yield SUMMARIES.at(counts.get("summaries", 0))
    yield ORIGINS.at(len(report.origins))
    for link in report.links:
        yield LINK_UP.at(link.up, link.neighbour)
        yield LINK_COST.at(link.cost_s, link.neighbour)
        yield LINK_MESSAGES.at(link.messages_in, link.neighbour, "in")
        yield LINK_MESSAGES.at(link.messages_out, link.neighbour, "out")
        yield LINK_DROPPED.at(link.dropped, link.neighbour)
