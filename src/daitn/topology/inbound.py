"""The best measured way to each site: what a requirement on a link is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Quantity, Requirement
from daitn.objects.readings import Reading
from daitn.topology.snapshot import Drrt

__all__ = ["LINK_QUANTITIES", "Inbound", "inbound_links", "is_fresh"]

LINK_QUANTITIES = (Quantity.RTT_S, Quantity.THROUGHPUT_BPS)
"""Quantities of the way to a site rather than of what is there."""


@dataclass
class Inbound:
    """Readings of the links from live sites to one site.

    Best is the least round-trip time and the most throughput. A reading that is stale is only
    kept to say how old the newest one is.
    """

    rtt_s: Reading | None = None
    throughput_bps: Reading | None = None
    newest_stale_at_s: float | None = None


def is_fresh(reading: Reading, now_s: float, stale_after_s: float) -> bool:
    """Whether a reading is young enough at `now_s` to decide on."""
    return reading.age_s(now_s) <= stale_after_s


def inbound_links(
    snapshot: Drrt, requirements: Iterable[Requirement], now_s: float, stale_after_s: float
) -> Mapping[SiteId, Inbound]:
    """Per site, the best links to it; empty where no requirement asks about links."""
    if not any(requirement.quantity in LINK_QUANTITIES for requirement in requirements):
        return {}
    found: dict[SiteId, Inbound] = {}
    for source, targets in snapshot.links.items():
        state = snapshot.sites.get(source)
        if state is None or not state.alive:
            continue
        for target, link in targets.items():
            if target == source:
                continue
            best = found.setdefault(target, Inbound())
            if link.rtt_s and _usable(best, link.rtt_s, now_s, stale_after_s):
                best.rtt_s = _better(best.rtt_s, link.rtt_s, least=True)
            if link.throughput_bps and _usable(best, link.throughput_bps, now_s, stale_after_s):
                best.throughput_bps = _better(best.throughput_bps, link.throughput_bps, least=False)
    return found


def _usable(best: Inbound, reading: Reading, now_s: float, stale_after_s: float) -> bool:
    if is_fresh(reading, now_s, stale_after_s):
        return True
    best.newest_stale_at_s = max(reading.at_s, best.newest_stale_at_s or reading.at_s)
    return False


def _better(known: Reading | None, other: Reading, *, least: bool) -> Reading:
    if known is None:
        return other
    if least:
        return other if other.value < known.value else known
    return other if other.value > known.value else known
