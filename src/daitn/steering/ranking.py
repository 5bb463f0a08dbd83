"""A forwarder's ranking of next hops for one intent, and the choice of one by it.

The policy pipeline scores everything that is known. All packets of one class of intents share these
scores (`rankings`) until something changes. The cost term depends on each packet's length, so it is
added per packet, unless everything is free. Choosing for a packet is then a walk down the ranking:

- no site that the packet has visited (its trace tells), and none that is down;
- in a network at rest, only next hops that advertise a higher score than the hop before did: the
  feasible successors of EIGRP (RFC 7868, section 4.2), with a score instead of a distance. A packet
  that follows growing scores cannot come back to where it was;
- another next hop if this forwarder has learned, from answers and waiting objects, that it is
  better by more than a margin: detours start where congestion is seen. The trace still keeps the
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
from daitn.policy.pipeline import OUT
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

__all__ = ["NextHopChoice", "Outline", "Ranking", "RankingBasis", "ScoredHops"]

MARGIN = 0.05
"""Factor by which a next hop with a lower advertised score must be better here to be taken."""
SCORE_UNIT = 2.0**-32
MOST_ADVERTISED_SCORE = 2**32 - 1
_MOST_REJECTIONS = 20
_OUTLINED = 4


class NextHopChoice(msgspec.Struct, frozen=True, gc=False):
    """A next hop, with the score to advertise to it."""

    via: str
    origin: str
    site: str
    """Its target: the origin, or the border site of its domain."""
    advertised_score: int
    expected_s: float
    score: float


class Outline(msgspec.Struct, frozen=True, gc=False):
    """The part of a ranking stored with every object: small, since there are very many of both."""

    at_s: float
    routes_version: int
    best: tuple[NextHopChoice, ...]

    def decision(self) -> Decision:
        """The best next hops, without terms and rejections."""
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
    """The ranking of one class of intents by summaries alone, without anything learned. Valid until
    summaries change."""

    __slots__ = (
        "advertised",
        "cordoned",
        "cost_share",
        "hops",
        "places",
        "preferences",
        "routes_version",
    )

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
        self.cordoned = reach.cordoned
        self.cost_share = cost_share(preferences)
        hops = next_hops_for(intent, reach)
        kept = best_next_hops(hops, reach, advertised_scores(hops, preferences))
        self.hops = rows_of(hops, kept)
        self.places: list[int] = self.hops.passes.nonzero()[0].tolist()
        """The admitted rows."""
        scores = advertised_scores(unpriced(self.hops), preferences)
        self.advertised: list[float] = scores[self.places].tolist()
        """Their scores as the next forwarder will see them, without the cost term."""


class ScoredHops:
    """The scores of one class of intents at one time, without the cost term."""

    __slots__ = ("admitted", "at_s", "basis", "expected_s", "hops", "prices_usd", "scores", "sites",
                 "statistics_version")  # fmt: skip

    def __init__(self, basis: RankingBasis, statistics: Statistics, now_s: float) -> None:
        self.basis = basis
        self.at_s = now_s
        self.statistics_version = statistics.version
        hops = self.hops = as_learned(basis.hops, statistics, now_s)
        scores = STEERING.scores(unpriced(hops), hops.passes, basis.preferences)
        places = basis.places
        self.scores: list[float] = scores[places].tolist()
        """Scores of the admitted rows, like all lists below."""
        self.expected_s: list[float] = hops.expected_s[places].tolist()
        self.admitted = [hops.rows[place] for place in places]
        self.sites = [site_of(hop.origin) for hop in self.admitted]
        self.prices_usd = [hop.offer.price_usd for hop in self.admitted]

    @property
    def free(self) -> bool:
        """Whether no next hop has a price: then one ranking serves packets of all lengths."""
        return not any(self.prices_usd)

    @property
    def rows(self) -> int:
        """Number of compared next hops."""
        return len(self.hops.rows)


class Ranking:
    """A forwarder's preferences for one intent at one time."""

    __slots__ = ("_choices", "_costs", "_decision", "_order", "_scores", "outline",
                 "scored")  # fmt: skip

    def __init__(self, scored: ScoredHops, units: int) -> None:
        self.scored = scored
        share = scored.basis.cost_share
        costs = self._costs = [
            HALF_USD / (HALF_USD + cost_usd(price_usd, units)) * share
            for price_usd in scored.prices_usd
        ]
        scores = self._scores = list(map(add, scored.scores, costs))
        # Stable: equal ones stay sorted by id.
        self._order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        self._choices: list[NextHopChoice | None] = [None] * len(scores)
        """Created on demand."""
        best = tuple(map(self._choice, self._order[:_OUTLINED]))
        self.outline = Outline(scored.at_s, scored.basis.routes_version, best)
        self._decision: tuple[PacketIntent, Decision] | None = None

    @property
    def choices(self) -> tuple[NextHopChoice, ...]:
        """All admitted next hops, best first."""
        return tuple(map(self._choice, self._order))

    def _choice(self, place: int) -> NextHopChoice:
        choice = self._choices[place]
        if choice is None:
            scored = self.scored
            hop = scored.admitted[place]
            advertised = scored.basis.advertised[place] + self._costs[place]
            choice = self._choices[place] = NextHopChoice(
                hop.via,
                hop.origin,
                scored.sites[place],
                int(min(advertised / SCORE_UNIT, MOST_ADVERTISED_SCORE)),
                scored.expected_s[place],
                self._scores[place],
            )
        return choice

    def choose(
        self,
        advertised_score: int,
        visited: Callable[[str], bool],
        local: bool,
        taken: Container[str] = (),
        detour: bool = True,
    ) -> NextHopChoice | None:
        """The best next hop for a packet with this advertised score; None if there is none.

        `visited` says which sites to skip, `local` whether the packet may be delivered here. The
        choice leads to no site in `taken`, but may pass through one. `detour`: whether the packet
        may go where the advertised score does not grow, for what was learned here.
        """
        best, choices = None, self._choices
        for place in self._order:
            choice = choices[place] or self._choice(place)
            via = choice.via
            if choice.site in taken:
                continue
            if via == LOCAL:
                if not local:
                    continue
            elif visited(via) or (choice.site != via and visited(choice.site)):
                continue
            if choice.advertised_score > advertised_score or via == LOCAL:
                if detour and best is not None and best.score - choice.score > MARGIN:
                    return best
                return choice
            if best is None:
                best = choice
        # Summaries changed since the score was advertised, so its basis is gone.
        return best

    def decision(self, intent: PacketIntent) -> Decision:
        """The basis of this ranking, for explanations: the best rows, and the first rejections."""
        if self._decision is None or self._decision[0] is not intent:
            self._decision = intent, self._decided(intent)
        return self._decision[1]

    def _decided(self, intent: PacketIntent) -> Decision:
        scored = self.scored
        rows, basis = scored.hops.rows, scored.basis
        scores = np.full(len(rows), OUT)
        scores[basis.places] = self._scores
        return STEERING.decision(
            priced(scored.hops, units_of(intent)),
            scores,
            lambda row: rows[row].id,
            chosen=scored.admitted[self._order[0]].id if self._order else None,
            rejections=tuple(
                islice(rejections(scored.hops, intent, basis.cordoned), _MOST_REJECTIONS)
            ),
            snapshot_version=basis.routes_version,
            now_s=scored.at_s,
        )
