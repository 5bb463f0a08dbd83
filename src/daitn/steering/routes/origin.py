"""What a site knows of one origin: the ways to it, and which of them cannot loop.

Feasibility is that of DUAL and Babel (RFC 8966, sections 3.5.1 and 3.7.3): a way is feasible where
its neighbour is nearer to the origin than this site ever said of itself since the origin last
counted up its number. Along feasible ways that bound only falls, so they make no loop at any
instant, whatever is still under way. Selection has hysteresis (RFC 8966, section 3.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from daitn.steering.wire.summaries import INFINITE, Offer, SeqnoRequest

__all__ = [
    "FAR_S",
    "HOP_S",
    "SETTLE_S",
    "Explained",
    "OriginRoutes",
    "RouteAdvert",
    "Via",
    "Way",
    "count_up",
    "newer",
]

HOP_S = 0.001
"""Added for each hop, so that distances grow strictly even where links measure nothing."""
FAR_S = 1e6
"""From here on an origin counts as not reached."""
MARGIN = 0.1
"""A way that is nearer by this share is taken at once."""
SETTLE_S = 10.0
"""A way that is nearer by less is taken after it was nearer for so long without a break."""
LEAST_GAIN_S = 1e-6
"""What is nearer by less counts as equally near: sums of floats differ by their order."""
ASK_NEAREST_S = 0.1
"""The nearest neighbour is asked alone for so long: all of them would pass on the same request."""
ASK_S = 2.0
"""After this time without success a request is sent again, then after twice the time, ..."""
MOST_ASK_S = 30.0
"""... and at least so often."""
PASS_ON_S = 1.0
"""Within this time a request of others is passed on once."""


def newer(seqno: int, than: int) -> bool:
    """Whether `seqno` is later, modulo 2^16 (RFC 8966, section 3.2.1)."""
    return 0 < (seqno - than) & 0xFFFF < 0x8000


def count_up(seqno: int) -> int:
    """The number after `seqno`."""
    return (seqno + 1) & 0xFFFF


@dataclass(frozen=True, slots=True)
class RouteAdvert:
    """What a neighbour said last of an origin."""

    seqno: int
    distance_s: float
    edition: int
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Via:
    """A neighbour by which an origin is reached."""

    neighbour: str
    distance_s: float
    """The link to it included."""
    remaining_s: float
    """From it on, as it said itself."""


@dataclass(frozen=True, slots=True)
class Way:
    """What a neighbour said of an origin, feasible or not."""

    via: Via
    seqno: int
    feasible: bool
    selected: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """All that is known of the ways to an origin."""

    origin: str
    bound: tuple[int, float] | None
    """Number and distance: neighbours nearer than that are feasible."""
    ways: tuple[Way, ...]
    """The nearest first."""
    told_on: bool
    """Whether neighbours hear of it; otherwise better ones took its place."""


@dataclass(slots=True)
class OriginRoutes:
    """The ways to one origin."""

    adverts: dict[str, RouteAdvert] = field(default_factory=dict)
    """By neighbour."""
    bound: tuple[int, float] | None = None
    """The feasibility distance: the best (seqno, distance) that this site ever told."""
    selected: str | None = None
    distance_s: float = INFINITE
    """By the selected way, the link to it included."""
    shown: tuple[str, float, RouteAdvert] | None = None
    """The selected way, as far as it matters to others, when `moved` was asked last."""
    gone_s: float | None = None
    """Since when no neighbour reaches it."""
    better_since_s: float | None = None
    """Since when another way than the selected one is nearer."""
    ask: tuple[str, ...] = ()
    """Neighbours whose ways are wanted and infeasible until the origin counts up."""
    passed_on: tuple[SeqnoRequest, float, str] | None = None
    """The last request of others that was passed on, when, and to whom."""
    awaiting: dict[str, int] = field(default_factory=dict)
    """Neighbours that asked for a number which has not come."""
    _vias: tuple[Via, ...] | None = None
    """As told last; None where something changed since."""
    _asked: frozenset[str] = frozenset()
    _ask_again_s: float = 0.0
    _ask_wait_s: float = ASK_NEAREST_S

    def feasible(self, neighbour: str) -> bool:
        if self.bound is None:
            return True
        advert, (seqno, distance_s) = self.adverts[neighbour], self.bound
        return newer(advert.seqno, seqno) or (
            advert.seqno == seqno and advert.distance_s < distance_s
        )

    def promise(self, seqno: int, distance_s: float) -> bool:
        """Lowers the bound, before that distance is told. Says whether it changed."""
        if self.bound is not None:
            known, least_s = self.bound
            if newer(known, seqno) or (known == seqno and least_s <= distance_s):
                return False
        self.bound, self._vias = (seqno, distance_s), None
        return True

    def far_s(self, costs_s: Mapping[str, float]) -> dict[str, float]:
        """Distance by each neighbour, the nearest first."""
        far_s = {
            neighbour: advert.distance_s + costs_s[neighbour] + HOP_S
            for neighbour, advert in self.adverts.items()
        }
        return dict(sorted(far_s.items(), key=lambda item: (item[1], item[0])))

    def select(self, costs_s: Mapping[str, float], now_s: float) -> None:
        """Selects anew after something changed or a time of `wake_s` came."""
        self._vias = None
        far_s = self.far_s(costs_s)
        feasible = [neighbour for neighbour in far_s if self.feasible(neighbour)]
        if self.selected not in feasible:
            self.selected, self.better_since_s = (feasible[0] if feasible else None), None
        if self.selected is None:
            self.distance_s, self.ask = INFINITE, tuple(far_s)
            return
        nearest, here_s = next(iter(far_s)), far_s[self.selected]
        if here_s - far_s[nearest] <= LEAST_GAIN_S:
            self.distance_s, self.ask, self.better_since_s = here_s, (), None
            return
        if self.better_since_s is None:
            self.better_since_s = now_s
        settled = now_s >= self.better_since_s + SETTLE_S
        if here_s - far_s[feasible[0]] > (LEAST_GAIN_S if settled else MARGIN * here_s):
            self.selected, here_s = feasible[0], far_s[feasible[0]]
        still_better = here_s - far_s[nearest] > LEAST_GAIN_S
        self.distance_s = here_s
        self.ask = (nearest,) if settled and still_better else ()
        if not still_better:
            self.better_since_s = None

    def heard_of(self) -> list[str]:
        """Neighbours for whom the number has come that they asked for, each once."""
        if not self.awaiting or self.selected is None:
            return []
        seqno = self.adverts[self.selected].seqno
        served = [who for who, asked in self.awaiting.items() if not newer(asked, seqno)]
        for who in served:
            del self.awaiting[who]
        return served

    def moved(self) -> bool:
        """Whether the selected way is another one, or says something else, since this was asked
        last: most of what is heard is of ways that are not selected."""
        via = self.selected
        shown = None if via is None else (via, self.distance_s, self.adverts[via])
        before, self.shown = self.shown, shown
        return before != shown

    def leave(self) -> None:
        """Selects no way, for a reason that lies elsewhere."""
        self.selected, self.distance_s = None, INFINITE
        self.ask, self.better_since_s, self._vias = (), None, None

    def ask_now(self, now_s: float) -> tuple[str, ...]:
        """Whom to ask now that the origin count up: first the nearest one; then all, new ones at
        once, the others now and then."""
        if not self.ask:
            self._asked = frozenset()
            return ()
        if self._asked.isdisjoint(self.ask):
            asked = self.ask[:1]
            self._ask_wait_s = ASK_NEAREST_S if len(self.ask) > 1 else ASK_S
        elif now_s < self._ask_again_s and (
            self._ask_wait_s == ASK_NEAREST_S or self._asked.issuperset(self.ask)
        ):
            return ()
        else:
            asked = self.ask
            self._ask_wait_s = min(max(ASK_S, 2 * self._ask_wait_s), MOST_ASK_S)
        self._asked, self._ask_again_s = frozenset(asked), now_s + self._ask_wait_s
        return asked

    def passed(
        self, by: str, request: SeqnoRequest, costs_s: Mapping[str, float], now_s: float
    ) -> Iterator[tuple[str, SeqnoRequest]]:
        """A neighbour's request as it is passed on, if it is, and to whom."""
        if self.passed_on is not None:
            before, passed_s, _ = self.passed_on
            if now_s < passed_s + PASS_ON_S and not newer(request.seqno, before.seqno):
                return
        nearest = self.selected or next((n for n in self.far_s(costs_s) if n != by), by)
        if nearest != by and request.hop_limit > 1:
            further = msgspec.structs.replace(request, hop_limit=request.hop_limit - 1)
            self.passed_on = further, now_s, nearest
            yield nearest, further

    def passed_again(
        self, costs_s: Mapping[str, float], now_s: float
    ) -> Iterator[tuple[str, SeqnoRequest]]:
        """A request that was passed on to a neighbour which is not the way any more, as it is where
        somebody waits for what was asked, and to whom. What comes by another way than the selected
        one is not told on."""
        if self.passed_on is None or not self.awaiting:
            return
        request, _, before = self.passed_on
        to = self.selected
        if to is None:
            if before in self.adverts:
                return
            others = self.far_s(costs_s)
            to = next((neighbour for neighbour in others if neighbour not in self.awaiting), before)
        elif not newer(request.seqno, self.adverts[to].seqno):
            return
        if to != before and to not in self.awaiting:
            self.passed_on = request, now_s, to
            yield to, request

    def wake_s(self) -> float:
        """When to select again though nothing changed."""
        if self.ask:
            return self._ask_again_s
        return INFINITE if self.better_since_s is None else self.better_since_s + SETTLE_S

    def ways(self, costs_s: Mapping[str, float]) -> tuple[Way, ...]:
        """All ways, the nearest first."""
        return tuple(
            Way(
                Via(neighbour, far_s, self.adverts[neighbour].distance_s),
                self.adverts[neighbour].seqno,
                self.feasible(neighbour),
                neighbour == self.selected,
            )
            for neighbour, far_s in self.far_s(costs_s).items()
        )

    def vias(self, costs_s: Mapping[str, float]) -> tuple[Via, ...]:
        """The feasible ways: the selected one, then the others, the nearest first."""
        if self._vias is None:
            vias = (
                Via(neighbour, far_s, self.adverts[neighbour].distance_s)
                for neighbour, far_s in self.far_s(costs_s).items()
                if self.feasible(neighbour)
            )
            self._vias = tuple(sorted(vias, key=lambda via: via.neighbour != self.selected))
        return self._vias
