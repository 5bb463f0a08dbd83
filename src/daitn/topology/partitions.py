"""Sites without a path between them, by measurement."""

from __future__ import annotations

from daitn.objects.identifiers import SiteId
from daitn.topology.inbound import is_fresh
from daitn.topology.snapshot import Drrt

__all__ = ["KNOWN_FOR_S", "severed"]

KNOWN_FOR_S = 60.0
"""Both sites must be connected for this long before lost echoes count: sites find each other within
seconds of starting, and sensing tries a new one within a few rounds of five."""


def severed(snapshot: Drrt, one: SiteId, other: SiteId, now_s: float, stale_after_s: float) -> bool:
    """Whether both sites recently measured that no echo to the other ever came back.

    A link that nobody measured may work. A site reaches itself.
    """
    if one == other:
        return False
    for source, target in ((one, other), (other, one)):
        link = snapshot.link(source, target)
        if link is None or link.rtt_s is not None or link.loss is None:
            return False
        if link.loss.value < 1.0 or not is_fresh(link.loss, now_s, stale_after_s):
            return False
    for site in (one, other):
        state = snapshot.sites.get(site)
        if state is None or now_s - state.changed_at_s < KNOWN_FOR_S:
            return False
    return True
