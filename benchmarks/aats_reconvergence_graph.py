"""The graph of `benchmarks.aats_reconvergence`, and whether next hops lead through it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.aats_reconvergence_process import Event

Link = tuple[str, str]


@dataclass(frozen=True)
class Graph:
    """Sites and the links between them."""

    sites: tuple[str, ...]
    links: tuple[Link, ...]

    def neighbours(self, site: str) -> set[str]:
        return {a if b == site else b for a, b in self.links if site in (a, b)}

    def without(self, site: str) -> Graph:
        links = tuple(link for link in self.links if site not in link)
        return Graph(tuple(one for one in self.sites if one != site), links)

    def without_link(self, link: Link) -> Graph:
        return Graph(self.sites, tuple(one for one in self.links if one != link))

    def connected(self) -> bool:
        seen, ahead = {self.sites[0]}, [self.sites[0]]
        while ahead:
            new = self.neighbours(ahead.pop()) - seen
            seen |= new
            ahead += new
        return len(seen) == len(self.sites)


def random_graph(sites: int, links: int, rng: random.Random) -> Graph:
    """A random tree, and random links in addition."""
    names = tuple(f"site-{i:02}" for i in range(sites))
    made = {(names[rng.randrange(i)], names[i]) for i in range(1, sites)}
    while len(made) < min(links, sites * (sites - 1) // 2):
        a, b = sorted(rng.sample(names, 2))
        made.add((a, b))
    return Graph(names, tuple(sorted(made)))


class NextHops:
    """The next hop of each site towards each origin, as events tell."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._vias: dict[str, dict[str, str]] = {origin: {} for origin in graph.sites}
        """By origin, then by site."""
        self._missing: dict[str, list[str]] = {}
        """What was found of origins whose ways did not change since."""
        self._links: set[Link] = set()
        self.graph = graph

    @property
    def graph(self) -> Graph:
        """Where ways may lead."""
        return self._graph

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self._graph = graph
        self._links = {*graph.links, *((b, a) for a, b in graph.links)}
        self._missing.clear()

    def apply(self, event: Event) -> None:
        kind, _, site, origin, via = event
        if kind == "way":
            self._missing.pop(origin, None)
            if via is None:
                self._vias[origin].pop(site, None)
            else:
                self._vias[origin][site] = via

    def forget(self, site: str) -> None:
        """It restarts, and knows nothing."""
        for vias in self._vias.values():
            vias.pop(site, None)
        self._missing.clear()

    def missing(self) -> list[tuple[str, str]]:
        """Sites without a way to an origin, with that origin."""
        found = []
        for origin in self._graph.sites:
            if origin not in self._missing:
                self._missing[origin] = self._astray(origin)
            found += [(site, origin) for site in self._missing[origin]]
        return found

    def _astray(self, origin: str) -> list[str]:
        vias = self._vias[origin]
        good = {origin}
        astray = []
        for site in self._graph.sites:
            path, at = [site], site
            while at not in good and len(path) <= len(self._graph.sites):
                via = vias.get(at)
                if via is None or (at, via) not in self._links:
                    break
                path.append(via)
                at = via
            if at in good:
                good.update(path)
            else:
                astray.append(site)
        return astray
