"""Selects the offers that a forwarder advertises, so that summaries stay small in networks of any
size.

Of each key it advertises `BEST` origins. Places are filled in turn, each with an origin that has
none yet: this site itself; the best balanced offer, the most trusted and fittest, the soonest, the
cheapest; then the next best balanced ones. Beside them it advertises the best balanced origins that
have abilities which none of them has, up to `MOST_KINDS`, and that of the longest context, so that
many deployments of one kind hide none of another. The balance is in seconds: distance, wait,
service, `SECONDS_PER_USD`, `SECONDS_PER_FIT` and `SECONDS_PER_TRUST`. Every order grows by the same
amount with each link, whichever the origin, so neighbours agree on it and the selection settles, as
shortest paths do (strictly increasing and isotone in the sense of Sobrinho, "An algebraic theory of
dynamic network routing", 2005).

It advertises at most `MOST_KEYS` keys. Beyond that, topics are folded into their parent: the finest
first, and among those the parent of most topics. A folded offer is a copy of the best balanced one
that it stands for, with the date of the oldest: it claims nothing that none of them offers. Another
of them may not keep that claim; a refusal then says so. Folding ends when the keys are below half
of the bound. Homes are never folded; beyond the bound they are left out in the order of their names
(domains are meant to stand for sites long before).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from typing import Any

import msgspec

from daitn.steering.routes.offers import Offers, wider
from daitn.steering.wire.offers import MOST_KINDS, Offer

__all__ = [
    "BEST",
    "MOST_KEYS",
    "Aggregation",
    "AggregationLimits",
    "balance",
    "best_of",
    "choose",
    "fold",
]

BEST = 4
MOST_KEYS = 4096
MOST_ORIGINS = 4096
MOST_OFFERS = 1 << 20
"""Limit over all routes through all neighbours; one offer takes about half a kilobyte."""
SECONDS_PER_USD = 1000.0
"""A tenth of a cent per 1,000 tokens weighs as much as a second."""
SECONDS_PER_FIT = 10.0
"""A hundredth of accuracy weighs as much as a tenth of a second."""
_MOST_LANGUAGES = 64
SECONDS_PER_TRUST = 5.0


@dataclass(frozen=True, slots=True)
class AggregationLimits:
    """How much a forwarder advertises, and for how many origins and offers it stores routes."""

    best: int = BEST
    most_keys: int = MOST_KEYS
    most_origins: int = MOST_ORIGINS
    most_offers: int = MOST_OFFERS

    @property
    def most_chosen(self) -> int:
        """Maximum number of origins advertised for one key."""
        return self.best + MOST_KINDS + 1


def balance(offer: Offer, distance_s: float = 0.0) -> float:
    """The balance of an offer, in seconds; smaller is better."""
    return (
        distance_s
        + offer.wait_s
        + offer.serve_s
        + SECONDS_PER_USD * offer.price_usd
        - SECONDS_PER_FIT * offer.fit
        - SECONDS_PER_TRUST * offer.trust
    )


def best_of(offers: Iterable[Offer], key: str) -> Offer:
    """The best balanced offer, under another key, with the oldest date, and with the abilities of
    all of them."""
    offers = tuple(offers)
    if len(offers) == 1 and offers[0].key == key:
        return offers[0]
    best = min(offers, key=lambda offer: (balance(offer), offer.key))
    contexts = [offer.context_tokens for offer in offers]
    masks = [offer.abilities for offer in offers]
    languages = {language for offer in offers for language in offer.languages}
    known = () if not all(offer.languages for offer in offers) else tuple(sorted(languages))
    return msgspec.structs.replace(
        best,
        key=key,
        at_s=min(offer.at_s for offer in offers),
        abilities=_kinds(masks) if all(masks) else (),
        context_tokens=0 if 0 in contexts else max(contexts),
        languages=known[:_MOST_LANGUAGES],
    )


def _kinds(abilities: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The kinds of abilities that no other one includes, those with most abilities first."""
    kept: list[int] = []
    masks = {mask for each in abilities for mask in each}
    for mask in sorted(masks, key=lambda mask: (-mask.bit_count(), mask)):
        if not _covered(mask, kept):
            kept.append(mask)
    return tuple(kept[:MOST_KINDS])


def _covered(mask: int, masks: Iterable[int]) -> bool:
    return any(mask & other == mask for other in masks)


def best_by_key(offers: Iterable[Offer]) -> dict[str, Offer]:
    """The best balanced offer of each key."""
    by_key: dict[str, list[Offer]] = {}
    for offer in offers:
        by_key.setdefault(offer.key, []).append(offer)
    return {key: best_of(same, key) for key, same in by_key.items()}


def choose(
    offers: Mapping[str, Offer], distances_s: Mapping[str, float], site: str, best: int
) -> tuple[str, ...]:
    """The origins to advertise of all that offer a key: `best`, and those with abilities that none
    of them has."""
    if len(offers) <= best:
        return tuple(offers)

    def soonness(origin: str) -> float:
        return distances_s[origin] + offers[origin].wait_s + offers[origin].serve_s

    def balanced(origin: str) -> tuple[float, str]:
        return balance(offers[origin], distances_s[origin]), origin

    def fittest(origin: str) -> tuple[float, ...]:
        offer = offers[origin]
        return -offer.trust, -offer.fit, -offer.amount, soonness(origin)

    places = [site] if site in offers else []
    places.append(min(offers, key=balanced))
    places.append(min(offers, key=lambda origin: (*fittest(origin), origin)))
    places.append(min(offers, key=lambda origin: (soonness(origin), origin)))
    places.append(min(offers, key=lambda o: (offers[o].price_usd, soonness(o), o)))
    places += nsmallest(best, offers, key=balanced)
    chosen = tuple(dict.fromkeys(places))[:best]
    return (*chosen, *_others_able(offers, chosen, balanced))


def _others_able(
    offers: Mapping[str, Offer], chosen: Iterable[str], balanced: Callable[[str], Any]
) -> Iterator[str]:
    """The origins without which a kind of abilities, or the longest context, would be lost."""
    covered = {mask for origin in chosen for mask in offers[origin].abilities}
    unlike = {offer.abilities for offer in offers.values()}
    unlike = {masks for masks in unlike if not all(_covered(mask, covered) for mask in masks)}
    left = MOST_KINDS
    if unlike:
        able = (origin for origin, offer in offers.items() if offer.abilities in unlike)
        for origin in sorted(able, key=balanced):
            masks = offers[origin].abilities
            if left and not all(_covered(mask, covered) for mask in masks):
                covered.update(masks)
                left -= 1
                yield origin
                chosen = (*chosen, origin)
    longest = max(map(_context, offers.values()))
    if all(_context(offers[origin]) < longest for origin in chosen):
        yield min((o for o, offer in offers.items() if _context(offer) == longest), key=balanced)


def _context(offer: Offer) -> float:
    return offer.context_tokens or inf


def fold(keys: Iterable[str], most: int, folded: frozenset[str] = frozenset()) -> frozenset[str]:
    """The parents to fold into, including `folded`, so that at most `most` keys are left (or none
    that can be folded)."""
    left = {advertised_as(key, folded) for key in keys}
    while len(left) > most:
        sizes = Counter(parent for key in left if (parent := next(wider(key), None)) is not None)
        if not sizes:
            break
        into = max(sizes, key=lambda parent: (sizes[parent] > 1, parent.count("/"),
                                              sizes[parent], parent))  # fmt: skip
        folded |= {into}
        left = {advertised_as(key, folded) for key in left}
    return folded


def advertised_as(key: str, folded: frozenset[str]) -> str:
    """The widest aggregate into which `key` is folded, or itself."""
    if not folded:
        return key
    return next((parent for parent in reversed([*wider(key)]) if parent in folded), key)


class Aggregation:
    """Tracks all offers, and selects those to advertise."""

    def __init__(self, site: str, limits: AggregationLimits) -> None:
        self.site, self.limits = site, limits
        self.offers = Offers()
        self._distances_s: dict[str, float] = {}
        self._folded: frozenset[str] = frozenset()
        self._bound = False
        """Whether there are too many keys to advertise all."""
        self._chosen: dict[str, dict[str, Offer]] = {}
        """Advertised key to origin to offer."""
        self._touched: set[str] = set()

    def put(self, origin: str, distance_s: float, offers: Iterable[Offer]) -> None:
        """Set an origin's distance and offers."""
        self._touched |= self.offers.put(origin, offers)
        self._distances_s[origin] = distance_s

    def drop(self, origin: str) -> None:
        """`origin` is no longer reached."""
        self._touched |= self.offers.put(origin, ())
        self._distances_s.pop(origin, None)

    def refresh(self) -> set[str]:
        """Repeat the selection. Returns the origins whose advertised offers changed."""
        if not self._touched:
            return set()
        changed: set[str] = set()
        for key, keys in self._groups().items():
            before = self._chosen.pop(key, {})
            if after := self._choose(key, keys):
                self._chosen[key] = after
            changed |= {
                origin
                for origin in before.keys() | after.keys()
                if before.get(origin) != after.get(origin)
            }
        self._touched.clear()
        return changed

    def _groups(self) -> dict[str, list[str]]:
        """The advertised keys to select again, each with the keys that it stands for."""
        by_key, most = self.offers.by_key, self.limits.most_keys
        bound = len(by_key) > (most // 2 if self._folded else most)
        if not bound and not self._bound:
            return {key: [key] if key in by_key else [] for key in self._touched}
        self._bound = bound
        self._folded = fold(by_key, most, self._folded) if bound else frozenset()
        groups: dict[str, list[str]] = {}
        for key in sorted(by_key):
            groups.setdefault(advertised_as(key, self._folded), []).append(key)
        kept = sorted(groups)[:most]
        return {key: [] for key in self._chosen} | {key: groups[key] for key in kept}

    def _choose(self, key: str, keys: Iterable[str]) -> dict[str, Offer]:
        by_origin: dict[str, list[Offer]] = {}
        for each in keys:
            for origin, offer in self.offers.by_key[each].items():
                by_origin.setdefault(origin, []).append(offer)
        by_best = {origin: best_of(offers, key) for origin, offers in by_origin.items()}
        chosen = choose(by_best, self._distances_s, self.site, self.limits.best)
        return {origin: by_best[origin] for origin in chosen}

    @property
    def chosen(self) -> Mapping[str, Mapping[str, Offer]]:
        """Everything advertised: key to origin to offer."""
        return self._chosen

    def advertised(self, origin: str) -> tuple[Offer, ...] | None:
        """The advertised part of an origin's offers; `None` means the origin is not advertised."""
        offers = self.offers.of.get(origin)
        if not offers or origin == self.site:
            return tuple(offers.values()) if offers else ()
        keys = dict.fromkeys(advertised_as(key, self._folded) for key in offers)
        chosen = (self._chosen.get(key, {}).get(origin) for key in keys)
        return tuple(offer for offer in chosen if offer is not None) or None
