"""Link readings between sites, described or not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading
from daitn.topology.network import LinkTable

__all__ = ["MOST_STRANGE_LINKS", "Links"]

MOST_STRANGE_LINKS = 10_000
"""Limit on links with an end that has not published a descriptor: more than a hundred sites produce
when they join at once. Beyond this the oldest are dropped, since anybody can invent sites."""


class Links(LinkTable):
    """Links between any sites; those of strangers are bounded."""

    def __init__(self, origin: SiteId | None = None) -> None:
        super().__init__(origin)
        self._strange: OrderedDict[tuple[SiteId, SiteId], None] = OrderedDict()

    def absorb_from(self, link: LinkReading, described: Container[SiteId], now_s: float) -> bool:
        """Like `absorb`. `described`: sites with a descriptor."""
        if not self.absorb(link, now_s):
            return False
        if link.source not in described or link.target not in described:
            self._strange[link.source, link.target] = None
            if len(self._strange) > MOST_STRANGE_LINKS:
                self._make_room(described)
        return True

    def _make_room(self, described: Container[SiteId]) -> None:
        """Drop the oldest link whose ends are still not both described."""
        while self._strange:
            (source, target), _ = self._strange.popitem(last=False)
            if source not in described or target not in described:
                self.delete(source, target)
                return
