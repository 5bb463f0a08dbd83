"""What a border site says of its domain to neighbours in other domains. Without I/O.

Outside, a domain is known by its border sites alone. Each stands for all that it reaches inside: of
every key it tells the best offers, as it would tell them on inside (`aggregation`), but under the
name of the domain (`origins`), and with the way inside and back added to the time of serving. So
what is told is what a site inside really does, with its terms (jurisdiction, owner, price); a
border site that gets a packet which was steered to its domain finds a way that keeps what was
promised, by its own ranking. Offers of one key are told by as many origins, as an origin has one
offer of a key. Owners' homes are not told.

Only sites are folded into a domain, never other domains: what is told on of those are the origins
of their own border sites. So no offer is told of twice, and none outlives the site that made it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from daitn.objects.identifiers import checked_name
from daitn.steering.routes.aggregation import Aggregation, AggregationLimits
from daitn.steering.routes.names import domain_of, domain_origin
from daitn.steering.routes.own import Own
from daitn.steering.wire.intent import Capability
from daitn.steering.wire.summaries import INFINITE, Offer

__all__ = ["Domain", "Reached"]

Reached = tuple[float, Iterable[Offer]]
"""How far a site is, seconds, and what it offers."""
SOON_S = 0.1
"""Keys that nobody inside offered before, or offers any more, are told after this time: packets
wait for longer, as where a site comes from another domain."""
_HOME = f"{Capability.HOME}:"
_NOBODY = ""
"""In place of the site whose own offers go first: inside, all are equal."""


class Domain:
    """The domain of a site, as the site tells of it. While nobody is outside, that costs nothing;
    else it is looked at again at most once per `SOON_S`."""

    def __init__(self, name: str, site: str, limits: AggregationLimits, now_s: float) -> None:
        """`name` is empty for a site of no domain. Raises `InvalidInput` for one of no use."""
        self.name = checked_name(name, "domain") if name else name
        self.origins = {
            domain_origin(name, site, number): Own(now_s) for number in range(1, limits.best + 1)
        }
        """By name. Those without offers are not told."""
        self._inside = Aggregation(_NOBODY, limits)
        self._numbers: dict[str, dict[str, int]] = {}
        """Key to site inside to the number of the origin that tells of it."""
        self._told = False
        self._touched: set[str] = set()
        self._again_s = -INFINITE

    # Of neighbours. `domain` is theirs; None: the same as here.

    def outside(self, domain: str | None) -> bool:
        """Whether a neighbour belongs to another domain."""
        return domain is not None and domain != self.name

    def hides(self, origin: str, domain: str | None) -> bool:
        """Whether a neighbour must not hear of an origin: outside of sites, inside of the domain as
        it is from outside."""
        if self.outside(domain):
            own = self.origins.get(origin)
            return domain_of(origin) is None or (own is not None and not own.offers)
        return origin in self.origins

    # What is told of the domain

    def border(self, domains: Iterable[str | None], known: Iterable[str]) -> None:
        """These are the domains of all neighbours now. `known` are all origins."""
        before, self._told = self._told, any(map(self.outside, domains))
        if not self._told:
            self._touched.clear()
        elif not before:
            self._touched.update(self._inside.offers.of)
            for origin in known:
                self.touch(origin)

    def touch(self, origin: str) -> None:
        """Something changed of an origin."""
        if self._told and domain_of(origin) is None:
            self._touched.add(origin)

    def due_s(self) -> float:
        """When `refresh` is due."""
        if not self._told:
            return INFINITE
        again_s = self._again_s if self._touched else INFINITE
        return min(again_s, *(own.publish_s for own in self.origins.values()))

    def refresh(self, reached: Callable[[str], Reached], now_s: float) -> set[str]:
        """The domain's origins of which something else is told than before."""
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
        told: list[dict[str, Offer]] = [{} for _ in self.origins]
        for key, chosen in sorted(self._inside.chosen.items()):
            numbers = self._numbers[key] = _numbered(chosen, before.get(key, {}))
            for site, number in numbers.items():
                told[number][key] = chosen[site]
        at_once = before.keys() != self._numbers.keys()
        for own, offers in zip(self.origins.values(), told, strict=True):
            own.intent(offers, at_once=at_once)


def _numbered(sites: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """Numbers for sites, the smallest that are free; one that had a number keeps it."""
    sites = sorted(sites)
    numbers = {site: before[site] for site in sites if site in before}
    taken = set(numbers.values())
    free = (number for number in itertools.count() if number not in taken)
    return numbers | {site: next(free) for site in sites if site not in before}


def _from_the_border(distance_s: float, offers: Iterable[Offer]) -> Iterator[Offer]:
    """Offers as they are to those who are at the border: there and back is part of serving."""
    for offer in offers:
        if not offer.key.startswith(_HOME):
            yield msgspec.structs.replace(offer, serve_s=offer.serve_s + 2.0 * distance_s)
