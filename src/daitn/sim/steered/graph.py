"""A network's sites and links, and shortest paths over the links that are up."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

__all__ = ["Graph", "Link", "NextHops"]

Link = frozenset[str]
NextHops = Mapping[str, tuple[float, str]]
"""Site to its distance in seconds and the next site on the path; empty at the target."""


class Graph:
    """Links with their one-way delays in seconds. Caches computed paths."""

    def __init__(self, links: Mapping[Link, float]) -> None:
        self.links = dict(links)
        self.neighbours: dict[str, dict[str, float]] = {}
        for link, delay_s in self.links.items():
            a, b = sorted(link)
            self.neighbours.setdefault(a, {})[b] = delay_s
            self.neighbours.setdefault(b, {})[a] = delay_s
        self.sites = sorted(self.neighbours)
        self._kept: dict[tuple[frozenset[Link], frozenset[str]], NextHops] = {}

    def next_hops(self, down: frozenset[Link], targets: frozenset[str]) -> NextHops:
        """From every site that reaches one of `targets`, the path to the nearest (Dijkstra)."""
        kept = self._kept.get((down, targets))
        if kept is not None:
            return kept
        found: dict[str, tuple[float, str]] = {}
        ahead = [(0.0, target, "") for target in sorted(targets)]
        while ahead:
            far_s, site, by = heapq.heappop(ahead)
            if site in found:
                continue
            found[site] = far_s, by
            for neighbour, delay_s in self.neighbours[site].items():
                if neighbour not in found and frozenset((site, neighbour)) not in down:
                    heapq.heappush(ahead, (far_s + delay_s, neighbour, site))
        self._kept[down, targets] = found
        return found

    def path(self, down: frozenset[Link], source: str, target: str) -> tuple[str, ...]:
        """The sites of the shortest path, including both ends; empty means there is none."""
        next_hops = self.next_hops(down, frozenset((target,)))
        if source not in next_hops:
            return ()
        path = [source]
        while (neighbour := next_hops[path[-1]][1]) != "":
            path.append(neighbour)
        return tuple(path)

    def sum_s(self, site: str) -> float:
        """Sum of the distances to all others."""
        return sum(far_s for far_s, _ in self.next_hops(frozenset(), frozenset((site,))).values())

    def about(self, site: str, number: int) -> list[str]:
        """The nearest sites, including itself."""
        found = self.next_hops(frozenset(), frozenset((site,)))
        return sorted(found, key=lambda neighbour: (found[neighbour][0], neighbour))[:number]
