"""A cache of rankings, by class of intent.

A class is a key, the requirements that decide which next hops are admitted, and the preferences.
Packets that differ in length, owner or cost limit share it, unless a price is within one's limit
and beyond another's, or a context is too short for one of them. A class is valid until the routes
towards its key change. The cost of each packet is added on top (`ranking`). If there are so many
next hops that only some are ranked, the class depends on the packet's length too, in steps
(`next_hops.cost_class`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from daitn.objects.intents import Preference
from daitn.steering.next_hops import reach_of, units_of
from daitn.steering.ranking import Ranking, RankingBasis, ScoredHops
from daitn.steering.routes.table import RouteTable
from daitn.steering.scoring import STEERING
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import PacketIntent, decode_intent

__all__ = ["Rankings"]

STALE_S = 0.05
"""A ranking is reused for this long if nothing is learned: waiting objects age."""
RANKED_EVERY_S = 0.001
"""If something is learned, a class is ranked again after this time times the number of classes; a
ranking takes about a tenth of it. A longer time would send a burst of packets to one free slot."""
MOST_RANKINGS = 4096
"""Limit on classes, on parsed intents, and on keys."""
MOST_ROWS = 1 << 17
"""Limit on the rows of each; a row takes about half a kilobyte."""
_INTENT_ROWS = 4
_ROW_BYTES = 128
"""An intent counts as `_INTENT_ROWS` rows, plus one per `_ROW_BYTES`: it is stored both in wire
form and parsed, and the latter takes several times as much if its strings are short."""

KeyT = TypeVar("KeyT", bound=Hashable)
CachedT = TypeVar("CachedT", "_KeyHops", "_IntentClass")


class _KeyHops:
    """The next hops towards a key, with their route versions."""

    __slots__ = ("checked_version", "edition", "key", "reach", "versions")

    def __init__(self, key: str) -> None:
        self.key = key

    def refresh(self, routes: RouteTable, edition: int) -> None:
        self.edition = edition
        """Unique to this refresh, among all keys."""
        self.reach = reach_of(self.key, routes)
        self.versions, self.checked_version = routes.versions(self.key), routes.version

    @property
    def rows(self) -> int:
        return len(self.reach.rows) + _rows(len(self.key))


class _IntentClass:
    """A class of intents, and the scores of its next hops."""

    __slots__ = ("edition", "intent_rows", "scored", "shared")

    def __init__(self, intent_rows: int) -> None:
        self.intent_rows = intent_rows

    def update(self, scored: ScoredHops, edition: int) -> None:
        """`edition` is that of the next hops."""
        self.scored, self.edition = scored, edition
        self.shared = Ranking(scored, 0) if scored.free else None
        """The ranking for packets of all lengths, if no next hop has a price."""

    @property
    def rows(self) -> int:
        return self.scored.rows + self.intent_rows


class _ParsedIntent:
    """A packet's intent, its class, and the ranking for its own length."""

    __slots__ = ("hops", "intent", "intent_rows", "key", "key_edition", "ranking", "units")

    def __init__(self, intent: PacketIntent, hops: _KeyHops, intent_rows: int) -> None:
        self.intent, self.hops, self.intent_rows = intent, hops, intent_rows
        self.units = units_of(intent)
        self.key: Hashable = None
        """The class's key, as of `key_edition` of the next hops."""
        self.key_edition = -1
        self.ranking: Ranking | None = None
        """The ranking with this intent's own costs, if its class shares none."""

    def class_key(self) -> Hashable:
        """Everything in the intent that affects the choice of a next hop."""
        if self.key_edition != self.hops.edition:
            intent, reach = self.intent, self.hops.reach
            self.key_edition = self.hops.edition
            self.key = (
                self.hops.key,
                intent.min_fit,
                intent.trust,
                intent.jurisdictions,
                intent.owners,
                intent.unkept,
                intent.needs,
                intent.language,
                reach.too_short(intent),
                tuple(sorted(intent.prefer.items())),
                reach.affordable(intent),
                reach.cost_class(intent),
            )
        return self.key

    @property
    def rows(self) -> int:
        return self.intent_rows + (0 if self.ranking is None else self.ranking.scored.rows)


class Rankings:
    """The cached rankings of one forwarder."""

    def __init__(self, routes: RouteTable, statistics: Statistics) -> None:
        self._routes = routes
        self._statistics = statistics
        self._advice: tuple[Preference, ...] = ()
        self._editions = 0
        self._hops: dict[str, _KeyHops] = {}
        self._hops_rows = 0
        self._classes: dict[Hashable, _IntentClass] = {}
        self._classes_rows = 0
        self._parsed: dict[bytes, _ParsedIntent] = {}
        """Their next hops are all in `_hops`."""
        self._parsed_rows = 0

    @property
    def classes(self) -> int:
        """The number of cached classes."""
        return len(self._classes)

    def advise(self, preferences: tuple[Preference, ...]) -> None:
        """Set the weights for scorers that an intent does not weigh. Raises `InvalidInput`."""
        STEERING.weighted(preferences)
        if preferences == self._advice:
            return  # A control centre repeats its advice.
        self._advice = preferences
        self._classes.clear()
        self._classes_rows = 0

    def intent(self, wire: bytes) -> PacketIntent:
        """Parse an intent. Raises `Corrupt`."""
        return (self._parsed.get(wire) or self._parse(wire)).intent

    def ranking(self, wire: bytes, now_s: float) -> Ranking:
        """The ranking for an intent in wire form. Raises `Corrupt`, and `InvalidInput` for
        preferences that name no scorer."""
        parsed = self._parsed.get(wire) or self._parse(wire)
        hops = parsed.hops
        if hops.checked_version != self._routes.version:
            self._revalidate(hops)
        key = parsed.key if parsed.key_edition == hops.edition else parsed.class_key()
        cached = self._classes.get(key)
        if (
            cached is None
            or cached.edition != hops.edition
            or not self._is_fresh(cached.scored, now_s)
        ):
            cached = self._score(parsed, key, cached, now_s)
        return cached.shared or self._priced(wire, parsed, cached.scored)

    def _is_fresh(self, scored: ScoredHops, now_s: float) -> bool:
        age_s = now_s - scored.at_s
        if age_s >= STALE_S:
            return False
        same = scored.statistics_version == self._statistics.version
        return same or age_s < RANKED_EVERY_S * len(self._classes)

    def _priced(self, wire: bytes, parsed: _ParsedIntent, scored: ScoredHops) -> Ranking:
        """The ranking with this intent's own costs."""
        ranking = parsed.ranking
        if ranking is None or ranking.scored is not scored:
            before = parsed.rows
            ranking = parsed.ranking = Ranking(scored, parsed.units)
            if self._parsed.get(wire) is parsed:
                self._parsed_rows += parsed.rows - before
                self._bound_parsed()
        return ranking

    def _parse(self, wire: bytes) -> _ParsedIntent:
        intent = decode_intent(wire)
        key = f"{intent.capability}:{intent.subject}"
        hops = self._hops.get(key)
        if hops is None:
            hops = _KeyHops(key)
            self._refresh(hops)
        parsed = self._parsed[wire] = _ParsedIntent(intent, hops, _rows(len(wire)))
        self._parsed_rows += parsed.rows
        self._bound_parsed()
        return parsed

    def _bound_parsed(self) -> None:
        if len(self._parsed) > MOST_RANKINGS or self._parsed_rows > MOST_ROWS:
            self._forget_parsed()

    def _forget_parsed(self) -> None:
        self._parsed.clear()
        self._parsed_rows = 0

    def _revalidate(self, hops: _KeyHops) -> None:
        """Routes changed, towards this key or another one."""
        if hops.versions == self._routes.versions(hops.key):
            hops.checked_version = self._routes.version
        else:
            self._hops_rows -= hops.rows
            self._refresh(hops)

    def _refresh(self, hops: _KeyHops) -> None:
        self._editions += 1
        hops.refresh(self._routes, self._editions)
        self._hops[hops.key] = hops
        self._hops_rows += hops.rows
        if (evicted := _evict(self._hops, self._hops_rows)) > 0:
            self._hops_rows -= evicted
            self._forget_parsed()  # They refer to what was evicted.

    def _score(
        self, parsed: _ParsedIntent, key: Hashable, before: _IntentClass | None, now_s: float
    ) -> _IntentClass:
        """Recompute the scores of the next hops."""
        edition = parsed.hops.edition
        if before is not None and before.edition == edition:
            basis = before.scored.basis
        else:
            preferences, version = self._preferences(parsed.intent), self._routes.version
            basis = RankingBasis(parsed.intent, preferences, parsed.hops.reach, version)
        scored = ScoredHops(basis, self._statistics, now_s)
        self._classes_rows -= before.rows if before is not None else 0
        fresh = self._classes[key] = before or _IntentClass(parsed.intent_rows)
        fresh.update(scored, edition)
        self._classes_rows += fresh.rows
        self._classes_rows -= _evict(self._classes, self._classes_rows)
        return fresh

    def _preferences(self, intent: PacketIntent) -> tuple[Preference, ...]:
        return self._advice + tuple(
            Preference(scorer=name, weight=weight) for name, weight in sorted(intent.prefer.items())
        )


def _rows(size: int) -> int:
    """The size, in rows, of an intent with that many bytes."""
    return _INTENT_ROWS + size // _ROW_BYTES


def _evict(cache: dict[KeyT, CachedT], rows: int) -> int:
    """Drop the oldest entries beyond the limits. Returns the number of freed rows."""
    before = rows
    while len(cache) > MOST_RANKINGS or (rows > MOST_ROWS and len(cache) > 1):
        rows -= cache.pop(next(iter(cache))).rows
    return before - rows
