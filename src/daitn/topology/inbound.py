"""The best measured link to each site, against which link requirements are checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Quantity, Requirement
from daitn.objects.readings import Reading
from daitn.topology.snapshot import Drrt

__all__ = ["LINK_QUANTITIES", "Inbound", "inbound_links", "is_fresh"]

LINK_QUANTITIES = (Quantity.RTT_S, Quantity.THROUGHPUT_BPS)
"""Quantities of the link to a site rather than of its assets."""


@dataclass(slots=True)
class Inbound:
    """Readings of the links from live sites to one site.

    Among fresh readings it keeps the lowest round-trip time and the highest throughput; among stale
    ones only the newest, to report its age.
    """

    rtt_s: Reading | None = None
    throughput_bps: Reading | None = None
    stale_rtt_s: Reading | None = None
    stale_throughput_bps: Reading | None = None

    def take_rtt(self, reading: Reading, oldest_s: float) -> None:
        if reading.at_s < oldest_s:
            self.stale_rtt_s = _newer(self.stale_rtt_s, reading)
        elif self.rtt_s is None or reading.value < self.rtt_s.value:
            self.rtt_s = reading

    def take_throughput(self, reading: Reading, oldest_s: float) -> None:
        if reading.at_s < oldest_s:
            self.stale_throughput_bps = _newer(self.stale_throughput_bps, reading)
        elif self.throughput_bps is None or reading.value > self.throughput_bps.value:
            self.throughput_bps = reading


def is_fresh(reading: Reading, now_s: float, stale_after_s: float) -> bool:
    """Whether a reading is recent enough at `now_s` to base a decision on."""
    return reading.at_s >= now_s - stale_after_s


def inbound_links(
    snapshot: Drrt, requirements: Iterable[Requirement], now_s: float, stale_after_s: float
) -> Mapping[SiteId, Inbound]:
    """The best links to each site; empty if no requirement concerns links."""
    if not any(requirement.quantity in LINK_QUANTITIES for requirement in requirements):
        return {}
    oldest_s = now_s - stale_after_s
    found: dict[SiteId, Inbound] = {}
    for source in snapshot.alive():
        for target, link in snapshot.links.get(source, {}).items():
            if target == source:
                continue
            best = found.get(target)
            if best is None:
                best = found[target] = Inbound()
            if link.rtt_s is not None:
                best.take_rtt(link.rtt_s, oldest_s)
            if link.throughput_bps is not None:
                best.take_throughput(link.throughput_bps, oldest_s)
    return found


def _newer(known: Reading | None, other: Reading) -> Reading:
    return other if known is None or other.at_s > known.at_s else known
