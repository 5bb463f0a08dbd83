"""Whether a round merges in groups first: hierarchical rounds.

(Liu et al. 2020, "Client-edge-cloud hierarchical federated learning", arXiv:1905.06641.) A group is
of sites with good links between them. One of them merges the group's models, so that one model for
each group crosses the slow links, and not one for each site. The mean of a round is that of its
groups' means, by their examples; a median is not that of medians, so that robust rounds have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from daitn.objects.decisions import Group
from daitn.objects.identifiers import SiteId
from daitn.objects.merging import MOST_MERGED, MergeRule, Reduces

__all__ = ["MOST_MEMBERS", "groups", "most_members"]

MOST_MEMBERS = 1024
"""Maximum number of members in a round that merges in groups. All their visits are in the lineage
of the result."""
_NEAR = 0.25
"""Maximum transfer time between sites with a good link, as a share of the slowest."""
_WORTH = 0.7
"""Share of the time of merging at one site from which groups are worth a further merge."""
_MOST_COMPARED = 256
"""Up to this many sites, all links are compared; beyond that, those of one place form a group."""

Seconds = Callable[[SiteId, SiteId], float]


def most_members(rules: Iterable[MergeRule]) -> int:
    """Maximum number of data sets in a round, for any of these merge rules."""
    only_means = all(rule.reduction is Reduces.MEAN for rule in rules)
    return MOST_MEMBERS if only_means else MOST_MERGED


def groups(
    sites: Sequence[SiteId],
    at: SiteId,
    rule: MergeRule,
    takes_s: Seconds,
    place_of: Callable[[SiteId], str],
    merging_s: float,
) -> tuple[Group, ...]:
    """The groups of a round's visits, which are at `sites` and finally merged at `at`; none if that
    saves no time. `takes_s`: from the first site to the second; `merging_s`: time of one more
    merge."""
    if rule.reduction is not Reduces.MEAN:
        return ()
    different = list(dict.fromkeys(sites))
    if len(different) > _MOST_COMPARED:
        clusters = _by_place(different, place_of)
    else:
        clusters = _by_links(different, takes_s)
    if len(clusters) == 1 and len(sites) <= MOST_MERGED:
        return ()
    if len(clusters) > MOST_MERGED // 2:
        clusters = [different]
    clusters = [part for cluster in clusters for part in _parts(cluster, sites)]
    order = [_aggregators(cluster, takes_s) for cluster in clusters]
    flat_s = sum(takes_s(site, at) for site in sites if site != at)
    gathered_s = max(_gathered_s(cluster, to[0], takes_s) for cluster, to in _zip(clusters, order))
    tree_s = gathered_s + merging_s + sum(takes_s(to[0], at) for to in order if to[0] != at)
    if len(sites) <= MOST_MERGED and tree_s > _WORTH * flat_s:
        return ()
    return tuple(
        Group(
            visits=tuple(k for k, site in enumerate(sites) if site in cluster),
            aggregators=tuple(to),
        )
        for cluster, to in _zip(clusters, order)
        if len(cluster) > 1
    )


def _zip(
    clusters: Sequence[list[SiteId]], order: Sequence[list[SiteId]]
) -> list[tuple[list[SiteId], list[SiteId]]]:
    return list(zip(clusters, order, strict=True))


def _by_links(sites: Sequence[SiteId], takes_s: Seconds) -> list[list[SiteId]]:
    """Sites connected by good links, directly or through others (single linkage)."""
    between = {
        (a, b): max(takes_s(a, b), takes_s(b, a)) for i, a in enumerate(sites) for b in sites[:i]
    }
    near_s = _NEAR * max(between.values(), default=0.0)
    cluster_of = {site: [site] for site in sites}
    for (a, b), seconds in between.items():
        if seconds <= near_s and cluster_of[a] is not cluster_of[b]:
            joined = cluster_of[a] + cluster_of[b]
            cluster_of.update(dict.fromkeys(joined, joined))
    return list({id(cluster): sorted(cluster) for cluster in cluster_of.values()}.values())


def _by_place(sites: Sequence[SiteId], place_of: Callable[[SiteId], str]) -> list[list[SiteId]]:
    places: dict[str, list[SiteId]] = {}
    for site in sites:
        places.setdefault(place_of(site), []).append(site)
    return list(places.values())


def _parts(cluster: list[SiteId], sites: Sequence[SiteId]) -> list[list[SiteId]]:
    """Parts of a cluster, none with more visits than one merge takes."""
    found: list[list[SiteId]] = [[]]
    visits = 0
    for site in cluster:
        visits += sites.count(site)
        if visits > MOST_MERGED:
            found.append([])
            visits = sites.count(site)
        found[-1].append(site)
    return found


def _aggregators(cluster: list[SiteId], takes_s: Seconds) -> list[SiteId]:
    """Among a cluster's sites, first the one that has all models soonest."""
    return sorted(cluster, key=lambda site: (_gathered_s(cluster, site, takes_s), site))


def _gathered_s(cluster: Sequence[SiteId], at: SiteId, takes_s: Seconds) -> float:
    return sum(takes_s(site, at) for site in cluster if site != at)
