"""How one gateway reaches every facility: directly, or through one other gateway.

One intermediate site is enough to get around nearly all failures and slow spots of Internet paths:
Andersen, Balakrishnan, Kaashoek and Morris, "Resilient overlay networks", SOSP 2001.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryConstraints
from daitn.objects.readings import LinkReading
from daitn.topology.inbound import is_fresh
from daitn.topology.qrrt.cache import PartsCache, cached
from daitn.topology.qrrt.columns import changed
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.relevance import STALE_AFTER_S

__all__ = ["ASSUMED_RTT_S", "RELAY_S", "paths_from", "permitted"]

ASSUMED_RTT_S = 0.05
"""For a path without a recent measurement: across half a continent."""
RELAY_S = 0.002
"""Overhead of a relaying gateway, with a margin; see the benchmark of the gateway."""
_BETTER_BY = 0.8
"""A relayed path must take less than this share of the direct path's time."""
_SAME_SITE_RTT_S = 0.0
_MOST_PERMITTED = 16
"""Distinct constraints whose paths are cached, as arrays over all rows, while the paths last."""


def paths_from(
    snapshot: Qrrt,
    origin: SiteId,
    now_s: float,
    broken: frozenset[SiteId] = frozenset(),
    known: tuple[Qrrt, Paths] | None = None,
) -> Paths:
    """The best path to each row. `broken`: sites that `origin` just failed to reach directly.

    `known`: paths to the rows of another version. Those that both have keep their paths, as long as
    the same relays are there.
    """
    relays = tuple(site for site in snapshot.gateways if site != origin and site not in broken)
    rows = len(snapshot.rows)
    before = None if known is None or known[1].relays != relays else known
    if before is None:
        fresh = np.arange(rows)
    else:
        fresh = changed(before[0].described, snapshot.described)
        if not len(fresh) and len(before[0].rows) == rows:
            return before[1]
    measured_s = ((_rtt_s(snapshot, origin, relay, now_s), relay) for relay in relays)
    nearest = sorted((rtt_s, relay) for rtt_s, relay in measured_s if rtt_s is not None)
    numbers = fresh.tolist()
    sites = dict.fromkeys(snapshot.rows[row].site for row in numbers)
    best = {site: _best(snapshot, origin, site, nearest, now_s, site in broken) for site in sites}
    index = {relay: position for position, relay in enumerate(relays)}
    found = [best[snapshot.rows[row].site] for row in numbers]
    paths = Paths(
        rtt_s=np.empty(rows, np.float64),
        direct_rtt_s=np.empty(rows, np.float64),
        relay=np.empty(rows, np.intp),
        relays=relays,
        measured=np.empty(rows, np.bool_),
    )
    if before is not None:
        _copy(before[1], paths)
    paths.rtt_s[fresh] = [path.rtt_s for path in found]
    paths.direct_rtt_s[fresh] = [path.direct_rtt_s for path in found]
    paths.relay[fresh] = [index.get(path.relay, -1) for path in found]
    paths.measured[fresh] = [path.measured for path in found]
    return paths


def _copy(source: Paths, target: Paths) -> None:
    """Copy the paths to the rows that both have."""
    rows = min(len(source.rtt_s), len(target.rtt_s))
    target.rtt_s[:rows] = source.rtt_s[:rows]
    target.direct_rtt_s[:rows] = source.direct_rtt_s[:rows]
    target.relay[:rows] = source.relay[:rows]
    target.measured[:rows] = source.measured[:rows]


def permitted(paths: Paths, snapshot: Qrrt, constraints: QueryConstraints) -> Paths:
    """The paths without relays that may not see the query: relays can read it, as facilities
    can."""
    if not (constraints.jurisdictions or constraints.owners):
        return paths
    kept: PartsCache[Paths] = cached(paths.cache, "permitted", (snapshot.nodes,), _MOST_PERMITTED)
    kind = constraints.jurisdictions, constraints.owners
    known = kept.get(kind)
    return kept.put(kind, _permitted(paths, snapshot, constraints)) if known is None else known


def _permitted(paths: Paths, snapshot: Qrrt, constraints: QueryConstraints) -> Paths:
    may = [_may_see(snapshot.nodes.get(relay), constraints) for relay in paths.relays]
    # The appended True stands for "no relay", index -1.
    allowed = np.array([*may, True], np.bool_)[paths.relay]
    return Paths(
        rtt_s=np.where(allowed, paths.rtt_s, paths.direct_rtt_s),
        direct_rtt_s=paths.direct_rtt_s,
        relay=np.where(allowed, paths.relay, -1),
        relays=paths.relays,
        measured=paths.measured,
    )


def _may_see(node: NodeDescriptor | None, constraints: QueryConstraints) -> bool:
    return (
        node is not None
        and (not constraints.jurisdictions or node.jurisdiction in constraints.jurisdictions)
        and (not constraints.owners or node.owner in constraints.owners)
    )


class _Path(NamedTuple):
    """Path from the origin to one site."""

    rtt_s: float
    direct_rtt_s: float
    relay: SiteId
    measured: bool


_NO_SITE = SiteId("")


def _best(
    snapshot: Qrrt,
    origin: SiteId,
    site: SiteId,
    nearest: Sequence[tuple[float, SiteId]],
    now_s: float,
    broken: bool,
) -> _Path:
    """`nearest`: relays, sorted by their distance from the origin."""
    if site == origin:
        return _Path(_SAME_SITE_RTT_S, _SAME_SITE_RTT_S, _NO_SITE, measured=True)
    known_s = _rtt_s(snapshot, origin, site, now_s)
    direct_s = math.inf if broken else ASSUMED_RTT_S if known_s is None else known_s
    best_s, by = direct_s, _NO_SITE
    for first_s, relay in nearest:
        if first_s + RELAY_S >= min(_BETTER_BY * direct_s, best_s):
            break
        second_s = _SAME_SITE_RTT_S if relay == site else _rtt_s(snapshot, relay, site, now_s)
        if second_s is None:
            continue
        through_s = first_s + second_s + RELAY_S
        if through_s < min(_BETTER_BY * direct_s, best_s):
            best_s, by = through_s, relay
    return _Path(best_s, direct_s, by, measured=known_s is not None or by != _NO_SITE)


def _rtt_s(snapshot: Qrrt, source: SiteId, target: SiteId, now_s: float) -> float | None:
    """The recent measurement of `source`, else of `target`.

    In this order, because a target that wants queries may claim to be near. Infinite if everything
    is lost; none if unknown.
    """
    rtt_s = _one_way(_link(snapshot, source, target), now_s)
    return _one_way(_link(snapshot, target, source), now_s) if rtt_s is None else rtt_s


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
