"""Link readings between sites."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

from immutables import Map

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading
from daitn.topology.state import merged_link

__all__ = ["MOST_STRANGE_LINKS", "Links"]

MOST_STRANGE_LINKS = 10_000
"""Links with an end that has not published a descriptor: more than a hundred sites that all join at
once produce. Beyond this the oldest are dropped, for anybody can invent sites."""


class Links:
    """The latest readings per source and target, whatever their order of arrival."""

    def __init__(self) -> None:
        self.known: Map[SiteId, Map[SiteId, LinkReading]] = Map()
        self._strange: OrderedDict[tuple[SiteId, SiteId], None] = OrderedDict()

    def absorb(self, link: LinkReading, described: Container[SiteId], now_s: float) -> bool:
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
        if source not in described or target not in described:
            self._strange[source, target] = None
            if len(self._strange) > MOST_STRANGE_LINKS:
                self._make_room(described)
        return True

    def forget(self, site: SiteId) -> None:
        """Forget all links of a site."""
        for source, targets in self.known.items():
            if source == site:
                self.known = self.known.delete(site)
            elif site in targets:
                self._delete(source, site)

    def _make_room(self, described: Container[SiteId]) -> None:
        """Drop the oldest link whose ends are still not both described."""
        while self._strange:
            (source, target), _ = self._strange.popitem(last=False)
            if source not in described or target not in described:
                self._delete(source, target)
                return

    def _delete(self, source: SiteId, target: SiteId) -> None:
        targets = self.known.get(source)
        if targets is None or target not in targets:
            return
        left = targets.delete(target)
        self.known = self.known.set(source, left) if left else self.known.delete(source)
