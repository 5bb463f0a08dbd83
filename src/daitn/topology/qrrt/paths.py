"""How one gateway reaches every facility: directly, or through one other gateway.

One site in between is enough to get around nearly all failures and slow spots of Internet paths:
Andersen, Balakrishnan, Kaashoek and Morris, "Resilient overlay networks", SOSP 2001.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading
from daitn.topology.inbound import is_fresh
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.relevance import STALE_AFTER_S

__all__ = ["ASSUMED_RTT_S", "paths_from"]

ASSUMED_RTT_S = 0.05
"""Of a way that nobody measured lately: across half a continent."""
RELAY_S = 0.002
"""What a relaying gateway adds, with room; see the benchmark of the gateway."""
_BETTER_BY = 0.8
"""A relayed path is taken where it takes less than this share of the direct one's time."""
_SAME_SITE_RTT_S = 0.0


def paths_from(
    snapshot: Qrrt, origin: SiteId, now_s: float, broken: frozenset[SiteId] = frozenset()
) -> Paths:
    """The best path to each row. `broken`: sites that `origin` just failed to reach directly."""
    sites = tuple(dict.fromkeys(row.site for row in snapshot.rows))
    relays = tuple(
        site
        for site, node in sorted(snapshot.nodes.items())
        if node.gateway is not None and site != origin and site not in broken
    )
    to_relay = {relay: _rtt_s(snapshot, origin, relay, now_s) for relay in relays}
    best = {
        site: _best(snapshot, origin, site, to_relay, relays, now_s, site in broken)
        for site in sites
    }
    index = {relay: position for position, relay in enumerate(relays)}
    found = [best[row.site] for row in snapshot.rows]
    return Paths(
        rtt_s=np.array([rtt_s for rtt_s, _, _ in found], np.float64),
        relay=np.array([index.get(relay, -1) for _, relay, _ in found], np.intp),
        relays=relays,
        measured=np.array([measured for _, _, measured in found], np.bool_),
    )


_NO_SITE = SiteId("")


def _best(
    snapshot: Qrrt,
    origin: SiteId,
    site: SiteId,
    to_relay: Mapping[SiteId, float | None],
    relays: tuple[SiteId, ...],
    now_s: float,
    broken: bool,
) -> tuple[float, SiteId, bool]:
    """Round trip, relay and whether it was measured."""
    if site == origin:
        return _SAME_SITE_RTT_S, _NO_SITE, True
    known_s = _rtt_s(snapshot, origin, site, now_s)
    direct_s = math.inf if broken else ASSUMED_RTT_S if known_s is None else known_s
    best_s, by = direct_s, _NO_SITE
    for relay in relays:
        first_s = to_relay[relay]
        second_s = _SAME_SITE_RTT_S if relay == site else _rtt_s(snapshot, relay, site, now_s)
        if first_s is None or second_s is None:
            continue
        through_s = first_s + second_s + RELAY_S
        if through_s < min(_BETTER_BY * direct_s, best_s):
            best_s, by = through_s, relay
    return best_s, by, known_s is not None or by != _NO_SITE


def _rtt_s(snapshot: Qrrt, source: SiteId, target: SiteId, now_s: float) -> float | None:
    """As either end measured it lately; infinite where nothing comes through; none if unknown."""
    known = [
        rtt_s
        for one, other in ((source, target), (target, source))
        if (rtt_s := _one_way(_link(snapshot, one, other), now_s)) is not None
    ]
    return min(known, default=None)


def _link(snapshot: Qrrt, source: SiteId, target: SiteId) -> LinkReading | None:
    targets = snapshot.links.get(source)
    return None if targets is None else targets.get(target)


def _one_way(link: LinkReading | None, now_s: float) -> float | None:
    if link is None:
        return None
    loss = link.loss
    lost = loss.value if loss is not None and is_fresh(loss, now_s, STALE_AFTER_S) else 0.0
    if lost >= 1.0:
        return math.inf
    if link.rtt_s is None or not is_fresh(link.rtt_s, now_s, STALE_AFTER_S):
        return None
    return link.rtt_s.value / (1.0 - lost)
