"""How fast the lines of sites are, by all that they measured: an estimate for pairs of sites of
which neither measured the other.

In a large network few pairs are measured. What a transfer gets is mostly bounded by the slower of
the two sites' own lines. The upper quartile of what a site gets from others is about what its line
carries, since most others' lines are no bottleneck for a slow site, and the faster quarter is for a
fast one.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from immutables import Map

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading

__all__ = ["Lines"]

_LEAST_MEASURED = 4
"""Links that a site must have measured for its line to be known."""


class Lines:
    """The upper quartile of each site's measured throughputs, whatever their order of arrival."""

    def __init__(self) -> None:
        self.bps: Map[SiteId, float] = Map()
        """Bytes per second, of the sites with enough measurements."""
        self._measured: dict[SiteId, list[float]] = {}
        """Ascending."""

    def changed(self, site: SiteId, before: LinkReading | None, now: LinkReading | None) -> None:
        """One of the site's links is measured anew, or forgotten."""
        was, is_ = _throughput_bps(before), _throughput_bps(now)
        if was == is_:
            return
        measured = self._measured.setdefault(site, [])
        if was is not None:
            del measured[bisect_left(measured, was)]
        if is_ is not None:
            insort(measured, is_)
        if not measured:
            del self._measured[site]
        if len(measured) >= _LEAST_MEASURED:
            self.bps = self.bps.set(site, measured[len(measured) * 3 // 4])
        elif site in self.bps:
            self.bps = self.bps.delete(site)


def _throughput_bps(link: LinkReading | None) -> float | None:
    return link.throughput_bps.value if link is not None and link.throughput_bps else None
