"""One forwarder's preferences for one want, and the choice of a next hop by them.

How the ways stand is scored by the policy pipeline over everything that is known, and serves all
packets of one class of want (`rankings`) until something changes. What they cost depends on each
packet's length: that term is added for each, unless all is free. Choosing for one packet is then a
walk down the ranking:

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
from operator import add

import msgspec
import numpy as np

from daitn.objects.decisions import Decision, Scored
from daitn.objects.intents import Preference
from daitn.policy.policy import OUT
from daitn.steering.next_hops import (
    LOCAL,
    Reach,
    as_learned,
    best_next_hops,
    cost_usd,
    id_of,
    next_hops_for,
    priced,
    rejections,
    rows_of,
    units_of,
    unpriced,
)
from daitn.steering.routes.names import site_of
from daitn.steering.scoring import HALF_USD, STEERING, advertised_scores, cost_share
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import PacketIntent

__all__ = ["NextHopChoice", "Outline", "Ranking", "RankingBasis", "Standing"]

MARGIN = 0.05
"""By how much more a way that promises less must be worth, for what was learned here alone."""
PROMISE_UNIT = 2.0**-32
MOST_PROMISE = 2**32 - 1
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
    """What summaries say to one class of want, whatever was learned: it lasts until they change."""

    __slots__ = ("advertised", "cost_share", "hops", "places", "preferences", "routes_version")

    def __init__(
        self,
        intent: PacketIntent,
        preferences: Sequence[Preference],
        reach: Reach,
        routes_version: int,
    ) -> None:
        """`intent` is any of the class. Raises `InvalidInput` for preferences that name no
        scorer."""
        self.preferences = preferences
        self.routes_version = routes_version
        self.cost_share = cost_share(preferences)
        hops = next_hops_for(intent, reach)
        kept = best_next_hops(hops, reach, advertised_scores(hops, preferences))
        self.hops = rows_of(hops, kept)
        self.places: list[int] = self.hops.passes.nonzero()[0].tolist()
        """Of the ways that are admitted, among the rows."""
        told = advertised_scores(unpriced(self.hops), preferences)
        self.advertised: list[float] = told[self.places].tolist()
        """Of those, as the next forwarder will see them, but for the term of cost."""


class Standing:
    """How the ways stand for one class of want at one time, but for what they cost."""

    __slots__ = ("at_s", "expected_s", "hops", "lanes_version", "prices_usd", "prospect", "scores",
                 "sites", "ways")  # fmt: skip

    def __init__(self, prospect: RankingBasis, statistics: Statistics, now_s: float) -> None:
        self.prospect = prospect
        self.at_s = now_s
        self.lanes_version = statistics.version
        ways = self.ways = as_learned(prospect.hops, statistics, now_s)
        scores = STEERING.scores(unpriced(ways), ways.passes, prospect.preferences)
        places = prospect.places
        self.scores: list[float] = scores[places].tolist()
        self.expected_s: list[float] = ways.expected_s[places].tolist()
        self.hops = [ways.rows[place] for place in places]
        """Those that are admitted, as all that follows."""
        self.sites = [site_of(hop.origin) for hop in self.hops]
        self.prices_usd = [hop.offer.price_usd for hop in self.hops]

    @property
    def free(self) -> bool:
        """Whether none of the ways has a price: then one ranking serves all lengths."""
        return not any(self.prices_usd)

    @property
    def rows(self) -> int:
        """How many ways it compares."""
        return len(self.ways.rows)


class Ranking:
    """What a forwarder prefers for one want at one time."""

    __slots__ = ("_choices", "_costs", "_decision", "_order", "_scores", "outline",
                 "standing")  # fmt: skip

    def __init__(self, standing: Standing, units: int) -> None:
        self.standing = standing
        share = standing.prospect.cost_share
        costs = self._costs = [
            HALF_USD / (HALF_USD + cost_usd(price_usd, units)) * share
            for price_usd in standing.prices_usd
        ]
        scores = self._scores = list(map(add, standing.scores, costs))
        # Stable: equal ones stay in the order of their ids.
        self._order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        self._choices: list[NextHopChoice | None] = [None] * len(scores)
        """As far as they were looked at."""
        best = tuple(map(self._choice, self._order[:_OUTLINED]))
        self.outline = Outline(standing.at_s, standing.prospect.routes_version, best)
        self._decision: tuple[PacketIntent, Decision] | None = None

    @property
    def choices(self) -> tuple[NextHopChoice, ...]:
        """All ways that are admitted, the best first."""
        return tuple(map(self._choice, self._order))

    def _choice(self, place: int) -> NextHopChoice:
        known = self._choices[place]
        if known is None:
            standing = self.standing
            hop = standing.hops[place]
            told = standing.prospect.advertised[place] + self._costs[place]
            known = self._choices[place] = NextHopChoice(
                hop.via,
                hop.origin,
                standing.sites[place],
                int(min(told / PROMISE_UNIT, MOST_PROMISE)),
                standing.expected_s[place],
                self._scores[place],
            )
        return known

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
        best, choices = None, self._choices
        for place in self._order:
            choice = choices[place] or self._choice(place)
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

    def decision(self, intent: PacketIntent) -> Decision:
        """What this ranking rests on, for people: the best rows, and the first that are out."""
        if self._decision is None or self._decision[0] is not intent:
            self._decision = intent, self._decided(intent)
        return self._decision[1]

    def _decided(self, intent: PacketIntent) -> Decision:
        standing = self.standing
        rows, prospect = standing.ways.rows, standing.prospect
        scores = np.full(len(rows), OUT)
        scores[prospect.places] = self._scores
        return STEERING.decision(
            priced(standing.ways, units_of(intent)),
            scores,
            lambda row: rows[row].id,
            chosen=standing.hops[self._order[0]].id if self._order else None,
            rejections=tuple(islice(rejections(standing.ways, intent), _TOLD)),
            snapshot_version=prospect.routes_version,
            now_s=standing.at_s,
        )
