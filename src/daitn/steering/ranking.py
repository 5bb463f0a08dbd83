"""One forwarder's preferences for one want, and the choice of a next hop by them.

A ranking is made by the policy pipeline over everything that is known, and serves all packets of
the same want until something changes. Choosing for one packet is then a walk down the ranking:

- no site that the packet has been at (its trace tells), and none that is down;
- in a network at rest only ways that promise more than the packet was promised at the hop before:
  these are the feasible successors of EIGRP (RFC 7868, section 4.2), with a score instead of a
  distance. A packet that follows growing promises cannot come back to where it was;
- another way where this forwarder has learned, from receipts and from what waits, that it is better
  by more than a margin: congestion is gone around where it is seen. The trace still keeps the
  packet from circling.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import islice

import msgspec
import numpy as np

from daitn.objects.decisions import Decision, Scored
from daitn.objects.intents import Preference
from daitn.steering.next_hops import (
    LOCAL,
    Reach,
    as_learned,
    best_next_hops,
    id_of,
    next_hops_for,
    reach_of,
    rejections,
    rows_of,
)
from daitn.steering.routes.names import site_of
from daitn.steering.routes.table import RouteTable
from daitn.steering.scoring import STEERING, advertised_scores
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import PacketIntent, decode_intent

__all__ = ["NextHopChoice", "Outline", "Ranking", "Rankings"]

STALE_S = 0.05
"""For which a ranking serves where nothing is learned: what waits gets older."""
RANKED_EVERY_S = 0.001
"""Where something is learned, the rankings of all wants together are made anew so often at most:
one takes about a tenth of that. A forwarder that packets pour through would otherwise send them
all to the same slot that is free until it ranks again."""
MOST_RANKINGS = 4096
MOST_ROWS = 1 << 17
"""Of all rankings together, and of all that is known of the keys that they are for; one takes up
about half a kilobyte."""
_WANT_ROWS = 4
_ROW_BYTES = 128
"""A want counts as so many rows, and as one more for so many of its bytes: it is kept as it came
and as it was read, which takes up several times as much where its words are short."""
MARGIN = 0.05
"""By how much more a way that promises less must be worth, for what was learned here alone."""
PROMISE_UNIT = 2.0**-32
_TOLD = 20
_OUTLINED = 4


class NextHopChoice(msgspec.Struct, frozen=True, gc=False):
    """A way on, with what the next hop is promised."""

    via: str
    origin: str
    site: str
    """To which it leads: the origin, or its domain's border."""
    promise: int
    expected_s: float
    score: float


class Outline(msgspec.Struct, frozen=True, gc=False):
    """What every object remembers of a ranking: little, as there are very many of both."""

    at_s: float
    routes_version: int
    best: tuple[NextHopChoice, ...]

    def decision(self) -> Decision:
        """The best of the ranking, without terms and rejections."""
        ranked = tuple(
            Scored(candidate=id_of(choice.origin, choice.via), score=choice.score, terms={})
            for choice in self.best
        )
        return Decision(
            policy=STEERING.name,
            chosen=ranked[0].candidate if ranked else None,
            ranking=ranked,
            rejections=(),
            snapshot_version=self.routes_version,
            at_s=self.at_s,
        )


class RankingBasis:
    """What summaries say about one want, whatever was learned: it lasts until they change."""

    __slots__ = ("advertised", "hops", "intent", "preferences", "routes_version")

    def __init__(
        self,
        intent: PacketIntent,
        preferences: Sequence[Preference],
        reach: Reach,
        routes_version: int,
    ) -> None:
        """Raises `InvalidInput` for preferences that name no scorer."""
        self.intent = intent
        self.preferences = preferences
        self.routes_version = routes_version
        hops = next_hops_for(intent, reach)
        scores = advertised_scores(hops, preferences)
        kept = best_next_hops(hops, reach, scores)
        self.hops = rows_of(hops, kept)
        advertised = scores[kept] / PROMISE_UNIT
        self.advertised: list[int] = advertised.clip(0, 2**32 - 1).astype("u8").tolist()


class Ranking:
    """What a forwarder prefers for one want at one time."""

    __slots__ = (
        "_decision",
        "_order",
        "_scores",
        "_ways",
        "at_s",
        "choices",
        "intent",
        "lanes_version",
        "outline",
        "prospect",
    )

    def __init__(self, prospect: RankingBasis, statistics: Statistics, now_s: float) -> None:
        self.intent = prospect.intent
        self.prospect = prospect
        self.at_s = now_s
        self.lanes_version = statistics.version
        hops = self._ways = as_learned(prospect.hops, statistics, now_s)
        scored = STEERING.scores(hops, hops.passes, prospect.preferences)
        scores: list[float] = scored.tolist()
        # Stable: equal ones stay in the order of their ids.
        order = sorted(hops.passes.nonzero()[0].tolist(), key=lambda i: -scores[i])
        self._scores, self._order = scores, order
        expected_s = hops.expected_s.tolist()
        self.choices = tuple(
            NextHopChoice(
                row.via,
                row.origin,
                site_of(row.origin),
                prospect.advertised[i],
                expected_s[i],
                scores[i],
            )
            for i in order
            for row in (hops.rows[i],)
        )
        self._decision: Decision | None = None
        self.outline = Outline(now_s, prospect.routes_version, self.choices[:_OUTLINED])

    @property
    def rows(self) -> int:
        """How many ways it compares."""
        return len(self._scores)

    def choose(
        self,
        promise: int,
        been: Callable[[str], bool],
        here: bool,
        taken: Container[str] = (),
        detour: bool = True,
    ) -> NextHopChoice | None:
        """The best way for a packet with this promise; None where there is none.

        `been` tells the sites that need not be tried, `here` whether this one may be. It does not
        lead to those that are `taken`, but may lead by them. `detour`: whether the packet may leave
        the way of growing promises for what was learned here.
        """
        best = None
        for choice in self.choices:
            via = choice.via
            if choice.site in taken:
                continue
            if via == LOCAL:
                if not here:
                    continue
            elif been(via) or (choice.site != via and been(choice.site)):
                continue
            if choice.promise > promise or via == LOCAL:
                if detour and best is not None and best.score - choice.score > MARGIN:
                    return best
                return choice
            if best is None:
                best = choice
        # Summaries changed since the promise was made: what it rested on is not there any more.
        return best

    def decision(self) -> Decision:
        """What this ranking rests on, for people: the best rows, and the first that are out."""
        if self._decision is None:
            self._decision = self._decided()
        return self._decision

    def _decided(self) -> Decision:
        hops = self._ways
        return STEERING.decision(
            hops,
            np.array(self._scores, float),
            lambda row: hops.rows[row].id,
            chosen=hops.rows[self._order[0]].id if self._order else None,
            rejections=tuple(islice(rejections(hops, self.intent), _TOLD)),
            snapshot_version=self.prospect.routes_version,
            now_s=self.at_s,
        )


class Rankings:
    """The rankings that serve now, by want."""

    def __init__(self, routes: RouteTable, statistics: Statistics) -> None:
        self._routes = routes
        self._statistics = statistics
        self._advice: tuple[Preference, ...] = ()
        self._kept: dict[bytes, Ranking] = {}
        self._rows = 0
        """Of those that are kept, with their wants."""
        self._reaches: dict[str, Reach] = {}
        """By key, as of `_reaches_version`."""
        self._reaches_version = -1

    def advise(self, preferences: tuple[Preference, ...]) -> None:
        """Weights to use where a want names none. Raises `InvalidInput`."""
        STEERING.weighted(preferences)
        if preferences == self._advice:
            return  # It is told again and again.
        self._advice = preferences
        self._kept.clear()
        self._rows = 0

    def ranking(self, wire: bytes, now_s: float) -> Ranking:
        """The ranking for an intent in wire form. Raises `Corrupt`, and `InvalidInput` for
        preferences that name no scorer."""
        kept = self._kept.get(wire)
        if kept is not None and kept.prospect.routes_version == self._routes.version:
            same = kept.lanes_version == self._statistics.version
            serves_s = STALE_S if same else min(STALE_S, RANKED_EVERY_S * len(self._kept))
            if now_s - kept.at_s < serves_s:
                return kept
            prospect = kept.prospect
        else:
            intent = kept.intent if kept is not None else decode_intent(wire)
            reach = self._reach(f"{intent.capability}:{intent.subject}")
            prospect = RankingBasis(intent, self._preferences(intent), reach, self._routes.version)
        fresh = Ranking(prospect, self._statistics, now_s)
        self._keep(wire, fresh)
        return fresh

    def _keep(self, intent: bytes, ranking: Ranking) -> None:
        """In place of an older one; where there are too many, of the oldest."""
        kept = self._kept
        if (before := kept.get(intent)) is not None:
            self._rows -= _rows(intent, before)
        kept[intent] = ranking
        self._rows += _rows(intent, ranking)
        while len(kept) > MOST_RANKINGS or (self._rows > MOST_ROWS and len(kept) > 1):
            oldest = next(iter(kept))
            self._rows -= _rows(oldest, kept.pop(oldest))

    def _reach(self, key: str) -> Reach:
        """All ways towards a key."""
        if self._reaches_version != self._routes.version:
            self._reaches.clear()
            self._reaches_version = self._routes.version
        known = self._reaches.get(key)
        if known is None:
            known = self._reaches[key] = reach_of(key, self._routes)
            rows = sum(len(reach.rows) for reach in self._reaches.values())
            while rows > MOST_ROWS and len(self._reaches) > 1:
                rows -= len(self._reaches.pop(next(iter(self._reaches))).rows)
        return known

    def _preferences(self, intent: PacketIntent) -> tuple[Preference, ...]:
        return self._advice + tuple(
            Preference(scorer=name, weight=weight) for name, weight in sorted(intent.prefer.items())
        )


def _rows(intent: bytes, ranking: Ranking) -> int:
    """What it takes up, in rows."""
    return ranking.rows + _WANT_ROWS + len(intent) // _ROW_BYTES
