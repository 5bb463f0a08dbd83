"""The origins that a border site advertises for its domain to neighbours in other domains. Without
I/O.

Outside, a domain is known by its border sites alone. Each stands for all that it reaches inside: of
every key it advertises the best offers, selected as inside (`aggregation`), but under origins of
the domain (`names`), and with the delay to the site and back added to the serving time. So every
advertised offer is what a site inside really does, on its terms (jurisdiction, owner, price). A
border site that gets a packet for its domain finds a next hop that keeps what was advertised, by
its own ranking. Since an origin has one offer of a key, several offers of a key are spread over as
many origins. Homes are not advertised.

Only sites are folded into a domain, never other domains: of those, the origins of their own border
sites are passed on. So no offer is advertised twice, and none outlives the site that made it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from daitn.objects.identifiers import checked_name
from daitn.steering.routes.advertised import Aggregation, AggregationLimits
from daitn.steering.routes.names import domain_of, domain_origin
from daitn.steering.routes.own import OwnOffers
from daitn.steering.wire.intent import Capability
from daitn.steering.wire.offers import INFINITE, Offer

__all__ = ["Domain", "Reached"]

Reached = tuple[float, Iterable[Offer]]
"""The distance of a site in seconds, and its offers."""
SOON_S = 0.1
"""A key that appears or vanishes inside is advertised after this time. Packets wait longer than
that, as when a site moves here from another domain."""
_HOME = f"{Capability.HOME}:"
_NO_SITE = ""
"""For `Aggregation`, which prefers its own site's offers: here, all sites are equal."""


class Domain:
    """A site's domain as the site advertises it. Without neighbours outside, it costs nothing;
    otherwise offers are selected at most once per `SOON_S`."""

    def __init__(self, name: str, site: str, limits: AggregationLimits, now_s: float) -> None:
        """An empty `name` means no domain. Raises `InvalidInput` for a malformed one."""
        self.name = checked_name(name, "domain") if name else name
        self.origins = {
            domain_origin(name, site, number): OwnOffers(now_s)
            for number in range(1, limits.most_chosen + 1)
        }
        """By name. Those without offers are not advertised."""
        self._inside = Aggregation(_NO_SITE, limits)
        self._numbers: dict[str, dict[str, int]] = {}
        """Key to site inside to the number of the origin that advertises it."""
        self._is_border = False
        self._touched: set[str] = set()
        self._again_s = -INFINITE

    # Neighbours. `domain` is theirs; None means this site's.

    def outside(self, domain: str | None) -> bool:
        """Whether a neighbour belongs to another domain."""
        return domain is not None and domain != self.name

    def hides(self, origin: str, domain: str | None) -> bool:
        """Whether an origin is not advertised to a neighbour: outside, sites are hidden; inside,
        the domain's origins."""
        if self.outside(domain):
            own = self.origins.get(origin)
            return domain_of(origin) is None or (own is not None and not own.offers)
        return origin in self.origins

    # Advertising the domain

    def set_neighbours(self, domains: Iterable[str | None], known: Iterable[str]) -> None:
        """Set the domains of all neighbours. `known` are all origins."""
        before, self._is_border = self._is_border, any(map(self.outside, domains))
        if not self._is_border:
            self._touched.clear()
        elif not before:
            self._touched.update(self._inside.offers.of)
            for origin in known:
                self.touch(origin)

    def touch(self, origin: str) -> None:
        """An origin changed."""
        if self._is_border and domain_of(origin) is None:
            self._touched.add(origin)

    def due_s(self) -> float:
        """When `refresh` is due."""
        if not self._is_border:
            return INFINITE
        again_s = self._again_s if self._touched else INFINITE
        return min(again_s, *(own.publish_s for own in self.origins.values()))

    def refresh(self, reached: Callable[[str], Reached], now_s: float) -> set[str]:
        """Repeat the selection if due. Returns the domain's origins whose offers changed."""
        if now_s < self.due_s():
            return set()
        if self._touched and now_s >= self._again_s:
            self._again_s = now_s + SOON_S
            self._fold(reached)
        return {origin for origin, own in self.origins.items() if own.publish(now_s)}

    def _fold(self, reached: Callable[[str], Reached]) -> None:
        for origin in self._touched:
            self._inside.put(origin, 0.0, _from_the_border(*reached(origin)))
        self._touched.clear()
        if not self._inside.refresh():
            return
        before, self._numbers = self._numbers, {}
        offers_by_number: list[dict[str, Offer]] = [{} for _ in self.origins]
        for key, chosen in sorted(self._inside.chosen.items()):
            numbers = self._numbers[key] = _numbered(chosen, before.get(key, {}))
            for site, number in numbers.items():
                offers_by_number[number][key] = chosen[site]
        at_once = before.keys() != self._numbers.keys()
        for own, offers in zip(self.origins.values(), offers_by_number, strict=True):
            own.update(offers, at_once=at_once)


def _numbered(sites: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """The smallest free number for each site; one that had a number keeps it."""
    sites = sorted(sites)
    numbers = {site: before[site] for site in sites if site in before}
    taken = set(numbers.values())
    free = (number for number in itertools.count() if number not in taken)
    return numbers | {site: next(free) for site in sites if site not in before}


def _from_the_border(distance_s: float, offers: Iterable[Offer]) -> Iterator[Offer]:
    """Offers as seen from the border: serving includes the round trip to the site."""
    for offer in offers:
        if not offer.key.startswith(_HOME):
            yield msgspec.structs.replace(offer, serve_s=offer.serve_s + 2.0 * distance_s)
