"""What a site knows of one origin: the ways to it, and which of them cannot loop.

Feasibility is that of DUAL and Babel (RFC 8966, sections 3.5.1 and 3.7.3): a way is feasible where
its neighbour is nearer to the origin than this site ever said of itself since the origin last
counted up its number. Along feasible ways that bound only falls, so they make no loop at any
instant, whatever is still under way. Selection has hysteresis (RFC 8966, section 3.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daitn.steering.wire.summaries import INFINITE, Offer

__all__ = [
    "FAR_S",
    "HOP_S",
    "SETTLE_S",
    "Advert",
    "Explained",
    "Origin",
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
ASK_S = 2.0
"""After this time without success a request is sent again, then after twice the time, ..."""
MOST_ASK_S = 30.0
"""... and at least so often."""


def newer(seqno: int, than: int) -> bool:
    """Whether `seqno` is later, modulo 2^16 (RFC 8966, section 3.2.1)."""
    return 0 < (seqno - than) & 0xFFFF < 0x8000


def count_up(seqno: int) -> int:
    """The number after `seqno`."""
    return (seqno + 1) & 0xFFFF


@dataclass(frozen=True, slots=True)
class Advert:
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
class Origin:
    """The ways to one origin."""

    adverts: dict[str, Advert] = field(default_factory=dict)
    """By neighbour."""
    bound: tuple[int, float] | None = None
    """The feasibility distance: the best (seqno, distance) that this site ever told."""
    selected: str | None = None
    distance_s: float = INFINITE
    """By the selected way, the link to it included."""
    gone_s: float | None = None
    """Since when no neighbour reaches it."""
    better_since_s: float | None = None
    """Since when another way than the selected one is nearer."""
    ask: tuple[str, ...] = ()
    """Neighbours whose ways are wanted and infeasible until the origin counts up."""
    passed_on: tuple[int, float] | None = None
    """The last request of others that was passed on, and when."""
    _asked: frozenset[str] = frozenset()
    _ask_again_s: float = 0.0
    _ask_wait_s: float = ASK_S

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
        self.bound = seqno, distance_s
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

    def leave(self) -> None:
        """Selects no way, for a reason that lies elsewhere."""
        self.selected, self.distance_s = None, INFINITE
        self.ask, self.better_since_s = (), None

    def ask_now(self, now_s: float) -> tuple[str, ...]:
        """Whom to ask now that the origin count up: new ones at once, the others now and then."""
        if not self.ask:
            self._asked, self._ask_wait_s = frozenset(), ASK_S
            return ()
        if self._asked.issuperset(self.ask) and now_s < self._ask_again_s:
            return ()
        self._asked, self._ask_again_s = frozenset(self.ask), now_s + self._ask_wait_s
        self._ask_wait_s = min(2 * self._ask_wait_s, MOST_ASK_S)
        return self.ask

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
        vias = (
            Via(neighbour, far_s, self.adverts[neighbour].distance_s)
            for neighbour, far_s in self.far_s(costs_s).items()
            if self.feasible(neighbour)
        )
        return tuple(sorted(vias, key=lambda via: via.neighbour != self.selected))
