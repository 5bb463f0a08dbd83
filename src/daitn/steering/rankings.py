"""How the ways stand now for all that packets want, by class of want.

What that rests on of a want: what is wanted, which ways it admits, and its preferences. So packets
that differ in length, owner or limit of cost share it, unless a price is within one's limit and
beyond another's. It lasts for as long as nothing changed of the ways towards its own key. What the
ways cost a packet is then added for each (`ranking`). Where ways are so many that only some are
ranked, which ones depends on the length too, by classes (`next_hops.cost_class`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from daitn.objects.intents import Preference
from daitn.steering.next_hops import reach_of, units_of
from daitn.steering.ranking import Ranking, RankingBasis, Standing
from daitn.steering.routes.table import RouteTable
from daitn.steering.scoring import STEERING
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import PacketIntent, decode_intent

__all__ = ["Rankings"]

STALE_S = 0.05
"""For which a ranking serves where nothing is learned: what waits gets older."""
RANKED_EVERY_S = 0.001
"""Where something is learned, the rankings of all classes together are made anew so often at most:
one takes about a tenth of that. A forwarder that packets pour through would otherwise send them
all to the same slot that is free until it ranks again."""
MOST_RANKINGS = 4096
"""Of classes; likewise of wants that are kept as they were read, and of keys."""
MOST_ROWS = 1 << 17
"""Likewise; one takes up about half a kilobyte."""
_WANT_ROWS = 4
_ROW_BYTES = 128
"""A want counts as so many rows, and as one more for so many of its bytes: it is kept as it came
and as it was read, which takes up several times as much where its words are short."""

KeyT = TypeVar("KeyT", bound=Hashable)
KeptT = TypeVar("KeptT", "_Ways", "_Class")


class _Ways:
    """The ways towards a key, and as of which changes."""

    __slots__ = ("checked", "edition", "key", "reach", "versions")

    def __init__(self, key: str) -> None:
        self.key = key

    def look(self, routes: RouteTable, edition: int) -> None:
        """Find them anew."""
        self.edition = edition
        """Differs from that of all others that were ever found."""
        self.reach = reach_of(self.key, routes)
        self.versions, self.checked = routes.versions(self.key), routes.version

    @property
    def rows(self) -> int:
        return len(self.reach.rows) + _rows(len(self.key))


class _Class:
    """A class of want, and how the ways stand for it."""

    __slots__ = ("edition", "free", "standing", "want_rows")

    def __init__(self, want_rows: int) -> None:
        self.want_rows = want_rows
        """What remembering what is wanted takes up."""

    def stand(self, standing: Standing, edition: int) -> None:
        """`edition` is that of the ways."""
        self.standing, self.edition = standing, edition
        self.free = Ranking(standing, 0) if standing.free else None
        """The ranking for all lengths, where none of the ways has a price."""

    @property
    def rows(self) -> int:
        return self.standing.rows + self.want_rows


class _Want:
    """A packet's intent as it was read, its class, and the ranking for its own length."""

    __slots__ = ("intent", "key", "key_edition", "ranking", "units", "want_rows", "ways")

    def __init__(self, intent: PacketIntent, ways: _Ways, want_rows: int) -> None:
        self.intent, self.ways, self.want_rows = intent, ways, want_rows
        self.units = units_of(intent)
        self.key: Hashable = None
        """Of its class, by the ways of that edition."""
        self.key_edition = -1
        self.ranking: Ranking | None = None
        """By what the ways cost it, where that is its own."""

    def class_key(self) -> Hashable:
        """All of it that decides about a way."""
        if self.key_edition != self.ways.edition:
            intent, reach = self.intent, self.ways.reach
            self.key_edition = self.ways.edition
            self.key = (
                self.ways.key,
                intent.min_fit,
                intent.trust,
                intent.jurisdictions,
                intent.owners,
                intent.unkept,
                tuple(sorted(intent.prefer.items())),
                reach.affordable(intent),
                reach.cost_class(intent),
            )
        return self.key

    @property
    def rows(self) -> int:
        return self.want_rows + (0 if self.ranking is None else self.ranking.standing.rows)


class Rankings:
    """The rankings that serve now."""

    def __init__(self, routes: RouteTable, statistics: Statistics) -> None:
        self._routes = routes
        self._statistics = statistics
        self._advice: tuple[Preference, ...] = ()
        self._editions = 0
        self._ways: dict[str, _Ways] = {}
        self._ways_rows = 0
        self._classes: dict[Hashable, _Class] = {}
        self._classes_rows = 0
        self._wants: dict[bytes, _Want] = {}
        """Their ways are all kept above."""
        self._wants_rows = 0

    @property
    def classes(self) -> int:
        """How many classes of want are kept."""
        return len(self._classes)

    def advise(self, preferences: tuple[Preference, ...]) -> None:
        """Weights to use where a want names none. Raises `InvalidInput`."""
        STEERING.weighted(preferences)
        if preferences == self._advice:
            return  # It is told again and again.
        self._advice = preferences
        self._classes.clear()
        self._classes_rows = 0

    def intent(self, wire: bytes) -> PacketIntent:
        """An intent in wire form, as it was read. Raises `Corrupt`."""
        return (self._wants.get(wire) or self._want(wire)).intent

    def ranking(self, wire: bytes, now_s: float) -> Ranking:
        """The ranking for an intent in wire form. Raises `Corrupt`, and `InvalidInput` for
        preferences that name no scorer."""
        want = self._wants.get(wire) or self._want(wire)
        ways = want.ways
        if ways.checked != self._routes.version:
            self._check(ways)
        key = want.key if want.key_edition == ways.edition else want.class_key()
        kept = self._classes.get(key)
        if kept is None or kept.edition != ways.edition or not self._serves(kept.standing, now_s):
            kept = self._stand(want, key, kept, now_s)
        return kept.free or self._own(wire, want, kept.standing)

    def _serves(self, standing: Standing, now_s: float) -> bool:
        age_s = now_s - standing.at_s
        if age_s >= STALE_S:
            return False
        same = standing.lanes_version == self._statistics.version
        return same or age_s < RANKED_EVERY_S * len(self._classes)

    def _own(self, wire: bytes, want: _Want, standing: Standing) -> Ranking:
        """By what the ways cost this want."""
        known = want.ranking
        if known is None or known.standing is not standing:
            before = want.rows
            known = want.ranking = Ranking(standing, want.units)
            if self._wants.get(wire) is want:
                self._wants_rows += want.rows - before
                self._bound_wants()
        return known

    def _want(self, wire: bytes) -> _Want:
        intent = decode_intent(wire)
        key = f"{intent.capability}:{intent.subject}"
        ways = self._ways.get(key)
        if ways is None:
            ways = _Ways(key)
            self._look(ways)
        want = self._wants[wire] = _Want(intent, ways, _rows(len(wire)))
        self._wants_rows += want.rows
        self._bound_wants()
        return want

    def _bound_wants(self) -> None:
        if len(self._wants) > MOST_RANKINGS or self._wants_rows > MOST_ROWS:
            self._forget_wants()

    def _forget_wants(self) -> None:
        self._wants.clear()
        self._wants_rows = 0

    def _check(self, ways: _Ways) -> None:
        """Something changed, of this key or of others."""
        if ways.versions == self._routes.versions(ways.key):
            ways.checked = self._routes.version
        else:
            self._ways_rows -= ways.rows
            self._look(ways)

    def _look(self, ways: _Ways) -> None:
        self._editions += 1
        ways.look(self._routes, self._editions)
        self._ways[ways.key] = ways
        self._ways_rows += ways.rows
        if (gone := _dropped(self._ways, self._ways_rows)) > 0:
            self._ways_rows -= gone
            self._forget_wants()  # They hold what was dropped.

    def _stand(self, want: _Want, key: Hashable, before: _Class | None, now_s: float) -> _Class:
        """How the ways stand now, in place of how they stood before."""
        edition = want.ways.edition
        if before is not None and before.edition == edition:
            prospect = before.standing.prospect
        else:
            preferences, version = self._preferences(want.intent), self._routes.version
            prospect = RankingBasis(want.intent, preferences, want.ways.reach, version)
        standing = Standing(prospect, self._statistics, now_s)
        self._classes_rows -= before.rows if before is not None else 0
        fresh = self._classes[key] = before or _Class(want.want_rows)
        fresh.stand(standing, edition)
        self._classes_rows += fresh.rows
        self._classes_rows -= _dropped(self._classes, self._classes_rows)
        return fresh

    def _preferences(self, intent: PacketIntent) -> tuple[Preference, ...]:
        return self._advice + tuple(
            Preference(scorer=name, weight=weight) for name, weight in sorted(intent.prefer.items())
        )


def _rows(size: int) -> int:
    """What a want of that many bytes takes up, in rows."""
    return _WANT_ROWS + size // _ROW_BYTES


def _dropped(kept: dict[KeyT, KeptT], rows: int) -> int:
    """Of too many, the oldest go. Returns how many rows those had."""
    before = rows
    while len(kept) > MOST_RANKINGS or (rows > MOST_ROWS and len(kept) > 1):
        rows -= kept.pop(next(iter(kept))).rows
    return before - rows
