"""The best measured link to each site, against which link requirements are checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from immutables import Map

from daitn.objects.identifiers import SiteId
from daitn.objects.intents import Quantity
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.snapshot import Drrt

__all__ = ["LINK_QUANTITIES", "Inbound", "InboundLinks", "is_fresh"]

LINK_QUANTITIES = (Quantity.RTT_S, Quantity.THROUGHPUT_BPS)
"""Quantities of the link to a site rather than of its assets."""

_NO_LINKS: Mapping[SiteId, LinkReading] = Map()


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

    def take(self, link: LinkReading, oldest_s: float) -> None:
        """Take another link into account; readings from before `oldest_s` are stale."""
        if link.rtt_s is not None:
            self._take_rtt(link.rtt_s, oldest_s)
        if link.throughput_bps is not None:
            self._take_throughput(link.throughput_bps, oldest_s)

    def rests_on(self, link: LinkReading) -> bool:
        """Whether any of its readings is from this link."""
        rtt_s, throughput_bps = link.rtt_s, link.throughput_bps
        return (rtt_s is not None and rtt_s in (self.rtt_s, self.stale_rtt_s)) or (
            throughput_bps is not None
            and throughput_bps in (self.throughput_bps, self.stale_throughput_bps)
        )

    def ages(self, oldest_s: float) -> bool:
        """Whether any reading that was fresh is stale by now."""
        return any(
            reading is not None and reading.at_s < oldest_s
            for reading in (self.rtt_s, self.throughput_bps)
        )

    def _take_rtt(self, reading: Reading, oldest_s: float) -> None:
        if reading.at_s < oldest_s:
            self.stale_rtt_s = _newer(self.stale_rtt_s, reading)
        elif self.rtt_s is None or reading.value < self.rtt_s.value:
            self.rtt_s = reading

    def _take_throughput(self, reading: Reading, oldest_s: float) -> None:
        if reading.at_s < oldest_s:
            self.stale_throughput_bps = _newer(self.stale_throughput_bps, reading)
        elif self.throughput_bps is None or reading.value > self.throughput_bps.value:
            self.throughput_bps = reading


def is_fresh(reading: Reading, now_s: float, stale_after_s: float) -> bool:
    """Whether a reading is recent enough at `now_s` to base a decision on."""
    return reading.at_s >= now_s - stale_after_s


class InboundLinks:
    """The best links to each site, in successive snapshots.

    Links whose readings did not change since the last snapshot are not looked at again.
    """

    def __init__(self) -> None:
        self._links: dict[SiteId, Mapping[SiteId, LinkReading]] = {}
        """Latest links of live sites, by target."""
        self._to: dict[SiteId, dict[SiteId, LinkReading]] = {}
        """Likewise by target and source."""
        self._best: dict[SiteId, Inbound] = {}
        self._oldest_s = 0.0
        """The bound of the last request: readings from before it were stale."""

    def at(self, snapshot: Drrt, now_s: float, stale_after_s: float) -> Mapping[SiteId, Inbound]:
        """The best links to each site that has any; valid until the next request."""
        oldest_s = now_s - stale_after_s
        if oldest_s < self._oldest_s:
            self._best.clear()
        self._oldest_s = oldest_s
        links = {
            source: known
            for source, known in snapshot.links.items()
            if (state := snapshot.sites.get(source)) is not None and state.alive
        }
        for source in self._links.keys() - links.keys():
            self._take(source, _NO_LINKS)
            del self._links[source]
        for source, known in links.items():
            if known is not self._links.get(source):
                self._take(source, known)
                self._links[source] = known
        for target, sources in self._to.items():
            best = self._best.get(target)
            if best is None or best.ages(oldest_s):
                self._best[target] = _best(sources.values(), oldest_s)
        return self._best

    def _take(self, source: SiteId, links: Mapping[SiteId, LinkReading]) -> None:
        before, kept = self._links.get(source, _NO_LINKS), 0
        for target, link in links.items():
            known = before.get(target)
            kept += known is not None
            if link is not known and target != source:
                self._to.setdefault(target, {})[source] = link
                best = self._best.get(target)
                if best is not None and known is not None and best.rests_on(known):
                    del self._best[target]
                elif best is not None:
                    best.take(link, self._oldest_s)
        if kept < len(before):
            for target in before:
                if target not in links and target != source:
                    self._forget(source, target)

    def _forget(self, source: SiteId, target: SiteId) -> None:
        sources = self._to[target]
        del sources[source]
        if not sources:
            del self._to[target]
        self._best.pop(target, None)


def _best(links: Iterable[LinkReading], oldest_s: float) -> Inbound:
    found = Inbound()
    for link in links:
        found.take(link, oldest_s)
    return found


def _newer(known: Reading | None, other: Reading) -> Reading:
    return other if known is None or other.at_s > known.at_s else known
