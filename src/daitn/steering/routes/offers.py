"""Offers: validation, changes worth advertising, and an index."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

from daitn.objects.errors import Corrupt, InvalidInput
from daitn.steering.routes.names import check_origin
from daitn.steering.wire.intent import UNMEASURED, Capability
from daitn.steering.wire.offers import INFINITE, Offer, Summary, Update

__all__ = ["Change", "Offers", "change", "check", "checked_cost", "far_apart", "wider"]

FIT_STEP = 0.01
_ANY_ANSWER = f"{Capability.ANSWER}:{UNMEASURED}"
FRESH_S = 60.0
"""An unchanged offer gets a new date this often."""


def check(summary: Summary) -> None:
    """Check a summary. Raises `Corrupt` for anything that no honest neighbour sends."""
    if not isinstance(summary, Update):
        return
    for entry in summary.routes:
        check_origin(entry.origin)
        if not entry.distance_s >= 0.0:
            raise _malformed(entry.origin, "distance_s", entry.distance_s)
        for offer in entry.offers or ():
            for name in ("fit", "serve_s", "wait_s", "price_usd"):
                if not getattr(offer, name) >= 0.0:
                    raise _malformed(entry.origin, name, getattr(offer, name))
            if offer.at_s != offer.at_s or offer.fit > 1.0:
                raise _malformed(entry.origin, "at_s, fit", (offer.at_s, offer.fit))


def _malformed(origin: str, name: str, value: object) -> Corrupt:
    return Corrupt(f"a summary gives {value} for {origin!r}", field=name, fix="ask its sender")


def checked_cost(cost_s: float) -> float:
    """Check a link's cost. Raises `InvalidInput` if it is not a duration."""
    if not 0.0 <= cost_s < INFINITE:
        raise InvalidInput(f"a link costs {cost_s} s", field="cost_s", fix="measure it again")
    return cost_s


class Change(enum.IntEnum):
    """How much a site's offers have changed since it last advertised them."""

    NONE = 0
    """Nothing that affects a decision."""
    LOAD = 1
    """Waiting times and dates, which change all the time."""
    CAPABILITY = 2
    """Abilities, accuracy, price or terms."""


def change(before: Mapping[str, Offer], after: Mapping[str, Offer]) -> Change:
    """Compare offers by key.

    A changed set of keys or changed terms count, as do 0.01 of fit, 5 % of a price or an amount,
    and 20 % and 10 ms of a serving time. 25 % and 0.1 s of a waiting time count as load, as does a
    date that is a minute later.
    """
    if before.keys() != after.keys():
        return Change.CAPABILITY
    return max((_changed(before[key], after[key]) for key in after), default=Change.NONE)


def _changed(old: Offer, new: Offer) -> Change:
    if (
        _terms(old) != _terms(new)
        or abs(new.fit - old.fit) >= FIT_STEP
        or far_apart(old.price_usd, new.price_usd, share=0.05, least=0.0)
        or far_apart(old.amount, new.amount, share=0.05, least=0.0)
        or far_apart(old.serve_s, new.serve_s, share=0.2, least=0.01)
    ):
        return Change.CAPABILITY
    if far_apart(old.wait_s, new.wait_s, share=0.25, least=0.1) or new.at_s >= old.at_s + FRESH_S:
        return Change.LOAD
    return Change.NONE


def _terms(offer: Offer) -> tuple[object, ...]:
    return (
        offer.trust,
        offer.jurisdiction,
        offer.owner,
        offer.keeps,
        offer.abilities,
        offer.context_tokens,
        offer.languages,
    )


def far_apart(old: float, new: float, *, share: float, least: float) -> bool:
    """Whether `new` differs from `old` by more than both that share of it and `least`."""
    return old != new and not abs(new - old) <= max(share * old, least)


def wider(key: str) -> Iterator[str]:
    """The aggregated keys that include `key`, the narrowest first.

    `answer:medicine/neurology` is in `answer:medicine/*` and in `answer:*`. Homes are not
    aggregated: one owner cannot stand for another.
    """
    capability, _, subject = key.partition(":")
    if capability == "home" or subject == "*":
        return
    parts = subject.removesuffix("/*").split("/")
    for size in range(len(parts) - 1, 0, -1):
        yield f"{capability}:{'/'.join(parts[:size])}/*"
    yield f"{capability}:*"


def _may_be_unmeasured(key: str) -> bool:
    return key.startswith(f"{Capability.ANSWER}:") and key != _ANY_ANSWER


class Offers:
    """An index of offers by origin and key."""

    def __init__(self) -> None:
        self.by_key: dict[str, dict[str, Offer]] = {}
        """Key to origin to offer."""
        self.of: dict[str, dict[str, Offer]] = {}
        """Origin to key to offer."""
        self._keys: dict[str, set[str]] = {}
        """Capability to keys."""
        self._changes = 0
        self._changed: dict[str, int] = {}
        """Key, or capability with its colon, to the last change that touched it."""

    def put(self, origin: str, offers: Iterable[Offer]) -> set[str]:
        """Replace an origin's offers. Returns the keys that it offers or offered."""
        before, after = self.of.get(origin, {}), {offer.key: offer for offer in offers}
        for key in before.keys() - after.keys():
            del self.by_key[key][origin]
            if not self.by_key[key]:
                self._remove(key)
        for key, offer in after.items():
            if key not in self.by_key:
                self._keys.setdefault(key.partition(":")[0], set()).add(key)
            self.by_key.setdefault(key, {})[origin] = offer
        if after:
            self.of[origin] = after
        else:
            self.of.pop(origin, None)
        touched = before.keys() | after.keys()
        self._touch(touched)
        return touched

    def _remove(self, key: str) -> None:
        capability = key.partition(":")[0]
        del self.by_key[key]
        self._changed.pop(key, None)
        self._keys[capability].discard(key)
        if not self._keys[capability]:
            del self._keys[capability]
            self._changed.pop(f"{capability}:", None)

    def touch(self, origin: str) -> None:
        """The routes to `origin` changed."""
        self._touch(self.of.get(origin, ()))

    def _touch(self, keys: Iterable[str]) -> None:
        """Mark keys as changed. `_remove` forgot those without offers; their capability changed."""
        self._changes += 1
        for key in keys:
            if key in self.by_key:
                self._changed[key] = self._changes
            if (capability := key.partition(":")[0]) in self._keys:
                self._changed[f"{capability}:"] = self._changes

    def versions(self, key: str) -> tuple[int | None, ...]:
        """Changes whenever `matching` may, or the routes to one of its origins."""
        return tuple(map(self._changed.get, (key, *wider(key), _ANY_ANSWER)))

    def matching(self, key: str) -> tuple[tuple[str, Offer], ...]:
        """The offers of that key, or else of an origin's narrowest aggregate of it; for a topic,
        also the offers of unmeasured deployments. An empty subject matches all of the capability.
        Sorted by origin."""
        capability, _, subject = key.partition(":")
        if not subject:
            keys = sorted(self._keys.get(capability, ()))
            return tuple(sorted(
                ((origin, offer) for each in keys for origin, offer in self.by_key[each].items()),
                key=lambda found: found[0],
            ))  # fmt: skip
        found = dict(self.by_key.get(key, {}))
        for aggregate in wider(key):
            for origin, offer in self.by_key.get(aggregate, {}).items():
                found.setdefault(origin, offer)
        also = self.by_key.get(_ANY_ANSWER, {}) if _may_be_unmeasured(key) else {}
        return tuple(sorted((*found.items(), *also.items()), key=lambda item: item[0]))
