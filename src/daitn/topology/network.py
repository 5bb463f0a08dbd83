"""Network state shared by DRRT and QRRT: the links between sites, and which of two descriptors or
readings is later.

They differ in what they do with a site that has not described itself: the DRRT lets its readings
wait and shows no link to it, the QRRT shows its links and drops its other figures, of which the
next come within a second. They differ in who is there: in the DRRT a site from its first descriptor
on, until it is lost; in the QRRT a site that came, described or not. So each keeps who is there,
and since when who is gone, beside the rows or sites that depend on it.
"""

from __future__ import annotations

import math

from immutables import Map

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.topology.lines import Lines

__all__ = [
    "LEAST_LINKS",
    "MOST_LINKS",
    "LinkTable",
    "fair_share",
    "is_later",
    "merged_link",
    "merged_load",
    "usable",
]

MOST_LINKS = 262_144
"""Links that the sources of a table share: all pairs of 512 sites, some 230 MB. All pairs of 2,000
sites would take 3.5 GB, and most of their readings would be stale: a site that probes eight others
every five seconds needs 21 minutes for all."""
LEAST_LINKS = 64
"""Of each source, however many there are."""
_ROOM = 1 / 8
"""Share of a full source's links that is dropped at once, so that the search for the oldest is
rare."""


class LinkTable:
    """The latest readings per source and target, whatever their order of arrival.

    Each source may have an equal share of `most` links, so that none can crowd out others. When a
    new link goes beyond it, those that the source measured longest ago are dropped, and when all
    are more than `most`, those of the source that has the most; but none from or to `origin`, the
    site that decides by them.
    """

    def __init__(self, origin: SiteId | None = None, most: int = MOST_LINKS) -> None:
        self._origin = origin
        self._most = most
        self.known: Map[SiteId, Map[SiteId, LinkReading]] = Map()
        """Source to target to the source's measurement."""
        self.lines = Lines()
        self._size = 0
        self._sources: dict[SiteId, set[SiteId]] = {}
        """Per target, so that forgetting a site costs only the number of its links."""

    def absorb(self, link: LinkReading, now_s: float) -> bool:
        """Take in a reading; returns whether anything is new.

        Raises `InvalidInput` for a reading that is negative or not finite.
        """
        source, target = link.source, link.target
        targets = self.known.get(source) or Map()
        known = targets.get(target)
        merged = merged_link(known, link, now_s)
        if merged is known:
            return False
        self.known = self.known.set(source, targets.set(target, merged))
        self.lines.changed(source, known, merged)
        if known is None:
            self._size += 1
            self._sources.setdefault(target, set()).add(source)
            self._keep_newest(source)
        return True

    def forget(self, site: SiteId) -> None:
        """Forget all links of a site."""
        for target in tuple(self.known.get(site, ())):
            self.delete(site, target)
        for source in tuple(self._sources.get(site, ())):
            self.delete(source, site)

    def delete(self, source: SiteId, target: SiteId) -> None:
        """Forget one link, if it is known."""
        targets = self.known.get(source)
        if targets is None or target not in targets:
            return
        self._size -= 1
        self.lines.changed(source, targets[target], None)
        left = targets.delete(target)
        self.known = self.known.set(source, left) if left else self.known.delete(source)
        sources = self._sources[target]
        sources.discard(source)
        if not sources:
            del self._sources[target]

    def _keep_newest(self, source: SiteId) -> None:
        """Drop the oldest links of a source that has more than its share, or of the one that has
        the most where an earlier one has."""
        share = fair_share(len(self.known), self._most)
        if len(self.known[source]) <= share or source == self._origin:
            own = len(self.known.get(self._origin, ())) if self._origin else 0
            if self._size - own <= share * len(self.known):
                return
            others = (one for one in self.known if one != self._origin)
            source = max(others, key=lambda one: len(self.known[one]))
        targets = self.known[source]
        by_age = sorted(targets, key=lambda target: (_measured_at_s(targets[target]), target))
        for target in by_age[: len(targets) - share + int(_ROOM * share)]:
            if target != self._origin:
                self.delete(source, target)


def fair_share(sources: int, most: int = MOST_LINKS) -> int:
    """How many links each of so many sources may have."""
    return max(LEAST_LINKS, most // sources)


def is_later(node: NodeDescriptor, known: NodeDescriptor) -> bool:
    """Whether a node's statement is later than what is known of it; counting restarts with the
    node."""
    return (node.started_at_s, node.version) > (known.started_at_s, known.version)


def merged_link(known: LinkReading | None, received: LinkReading, now_s: float) -> LinkReading:
    """Per field the later reading; `known` itself if nothing in `received` is later.

    Raises `InvalidInput` for a reading that is negative or not finite.
    """
    rtt_s, throughput_bps, loss = received.rtt_s, received.throughput_bps, received.loss
    if rtt_s is not None:
        rtt_s = usable(rtt_s, now_s, "rtt_s")
    if throughput_bps is not None:
        throughput_bps = usable(throughput_bps, now_s, "throughput_bps")
    if loss is not None:
        loss = usable(loss, now_s, "loss")
    if known is not None:
        rtt_s = _later(known.rtt_s, rtt_s)
        throughput_bps = _later(known.throughput_bps, throughput_bps)
        loss = _later(known.loss, loss)
        if rtt_s is known.rtt_s and throughput_bps is known.throughput_bps and loss is known.loss:
            return known
    return LinkReading(
        source=received.source,
        target=received.target,
        rtt_s=rtt_s,
        throughput_bps=throughput_bps,
        loss=loss,
    )


def merged_load(known: LoadReading | None, received: LoadReading) -> LoadReading:
    """Per field the later reading; `known` itself if nothing in `received` is later."""
    if known is None:
        return received
    queue = _later(known.queue, received.queue) or received.queue
    cpu_share = _later(known.cpu_share, received.cpu_share) or received.cpu_share
    disk_free = _later(known.disk_free_bytes, received.disk_free_bytes) or received.disk_free_bytes
    if queue is known.queue and cpu_share is known.cpu_share and disk_free is known.disk_free_bytes:
        return known
    return LoadReading(site=known.site, queue=queue, cpu_share=cpu_share, disk_free_bytes=disk_free)


def usable(reading: Reading, now_s: float, name: str) -> Reading:
    """The reading, dated now at the latest: clocks that run ahead gain nothing.

    Raises `InvalidInput` for one that is negative or not finite.
    """
    if not (0.0 <= reading.value < math.inf and math.isfinite(reading.at_s)):
        raise InvalidInput(
            f"a reading of {reading.origin} is not a finite number from 0 on: "
            f"{reading.value} at {reading.at_s}",
            field=name,
            fix=f"check the sensing of site {reading.origin}",
        )
    if reading.at_s > now_s:
        return Reading(reading.value, now_s, reading.origin)
    return reading


def _measured_at_s(link: LinkReading) -> float:
    """When a link was last measured, in seconds since the epoch."""
    readings = (link.rtt_s, link.throughput_bps, link.loss)
    return max((reading.at_s for reading in readings if reading is not None), default=0.0)


def _later(known: Reading | None, received: Reading | None) -> Reading | None:
    """The later of two readings, in whatever order they arrived; `known` on a tie."""
    if received is None or known is received:
        return known
    if known is None or received.at_s > known.at_s:
        return received
    if received.at_s < known.at_s:
        return known
    # Readings of the same instant: any order works that does not depend on which arrived first.
    return max(known, received, key=lambda reading: (reading.origin, reading.value))
