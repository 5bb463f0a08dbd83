"""A site's knowledge about one origin: the routes to it, and which of them cannot loop.

Feasibility is that of DUAL and Babel (RFC 8966, sections 3.5.1 and 3.7.3): a route is feasible if
its neighbour is nearer to the origin than this site has ever advertised itself to be since the
origin last incremented its sequence number. Along feasible routes that bound only falls, so they
form no loop at any instant, whatever is still in transit. Selection has hysteresis (RFC 8966,
section 3.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from daitn.steering.wire.offers import INFINITE, Offer, SeqnoRequest

__all__ = [
    "HOP_S",
    "SETTLE_S",
    "UNREACHABLE_S",
    "OriginExplanation",
    "OriginRoute",
    "OriginRoutes",
    "RouteAdvert",
    "RouteState",
    "count_up",
    "newer",
]

HOP_S = 0.001
"""Added per hop, so that distances strictly grow even if links measure no delay."""
UNREACHABLE_S = 1e6
"""An origin this far away counts as unreachable."""
MARGIN = 0.1
"""A route that is shorter by this share is selected at once."""
SETTLE_S = 10.0
"""A route that is shorter by less is selected once it has been shorter for this long."""
LEAST_GAIN_S = 1e-6
"""Smaller differences count as equal: sums of floats depend on their order."""
ASK_NEAREST_S = 0.1
"""How long only the nearest neighbour is asked: all of them would forward the same request."""
ASK_S = 2.0
"""An unsuccessful request is repeated after this time, then after twice the time, ..."""
MOST_ASK_S = 30.0
"""... but at least this often."""
FORWARD_S = 1.0
"""Within this time, requests of others are forwarded once."""


def newer(seqno: int, than: int) -> bool:
    """Whether `seqno` is later, modulo 2^16 (RFC 8966, section 3.2.1)."""
    return 0 < (seqno - than) & 0xFFFF < 0x8000


def count_up(seqno: int) -> int:
    """The sequence number after `seqno`."""
    return (seqno + 1) & 0xFFFF


@dataclass(frozen=True, slots=True)
class RouteAdvert:
    """A neighbour's last advert for an origin."""

    seqno: int
    distance_s: float
    edition: int
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class OriginRoute:
    """A route to an origin, by its next hop."""

    neighbour: str
    distance_s: float
    """Including the link to the neighbour."""
    remaining_s: float
    """From the neighbour on, as it advertises."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route, feasible or not."""

    route: OriginRoute
    seqno: int
    feasible: bool
    selected: bool


@dataclass(frozen=True, slots=True)
class OriginExplanation:
    """Everything known about the routes to an origin."""

    origin: str
    bound: tuple[int, float] | None
    """Sequence number and distance: neighbours nearer than that are feasible."""
    routes: tuple[RouteState, ...]
    """Nearest first."""
    advertised: bool
    """Whether it is advertised to neighbours; otherwise better origins took its place."""


@dataclass(slots=True)
class OriginRoutes:
    """The routes to one origin."""

    adverts: dict[str, RouteAdvert] = field(default_factory=dict)
    """By neighbour."""
    bound: tuple[int, float] | None = None
    """The feasibility distance: the best (seqno, distance) ever advertised by this site."""
    selected: str | None = None
    distance_s: float = INFINITE
    """Through the selected route, including its first link."""
    selection: tuple[str, float, RouteAdvert] | None = None
    """The selected route as of the last call of `selection_changed`."""
    unreachable_since_s: float | None = None
    """Since when no neighbour reaches it."""
    better_since_s: float | None = None
    """Since when another route is shorter than the selected one."""
    ask: tuple[str, ...] = ()
    """Neighbours with better routes that are infeasible until the origin counts up."""
    forwarded: tuple[SeqnoRequest, float, str] | None = None
    """The last request forwarded for others: its content, time, and receivers."""
    awaiting: dict[str, int] = field(default_factory=dict)
    """Neighbours that await a sequence number, with the number."""
    _routes: tuple[OriginRoute, ...] | None = None
    """A cache of `routes`."""
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

    def tighten_bound(self, seqno: int, distance_s: float) -> bool:
        """Lower the bound to a distance that is about to be advertised. Returns whether it
        changed."""
        if self.bound is not None:
            known, least_s = self.bound
            if newer(known, seqno) or (known == seqno and least_s <= distance_s):
                return False
        self.bound, self._routes = (seqno, distance_s), None
        return True

    def distances_s(self, costs_s: Mapping[str, float]) -> dict[str, float]:
        """The distance through each neighbour, nearest first."""
        distances_s = {
            neighbour: advert.distance_s + costs_s[neighbour] + HOP_S
            for neighbour, advert in self.adverts.items()
        }
        return dict(sorted(distances_s.items(), key=lambda item: (item[1], item[0])))

    def select(self, costs_s: Mapping[str, float], now_s: float) -> None:
        """Select a route after something changed, or when `wake_s` is due."""
        self._routes = None
        distances_s = self.distances_s(costs_s)
        feasible = [neighbour for neighbour in distances_s if self.feasible(neighbour)]
        if self.selected not in feasible:
            self.selected, self.better_since_s = (feasible[0] if feasible else None), None
        if self.selected is None:
            self.distance_s, self.ask = INFINITE, tuple(distances_s)
            return
        nearest, selected_s = next(iter(distances_s)), distances_s[self.selected]
        if selected_s - distances_s[nearest] <= LEAST_GAIN_S:
            self.distance_s, self.ask, self.better_since_s = selected_s, (), None
            return
        if self.better_since_s is None:
            self.better_since_s = now_s
        settled = now_s >= self.better_since_s + SETTLE_S
        if selected_s - distances_s[feasible[0]] > (
            LEAST_GAIN_S if settled else MARGIN * selected_s
        ):
            self.selected, selected_s = feasible[0], distances_s[feasible[0]]
        still_better = selected_s - distances_s[nearest] > LEAST_GAIN_S
        self.distance_s = selected_s
        self.ask = (nearest,) if settled and still_better else ()
        if not still_better:
            self.better_since_s = None

    def take_satisfied(self) -> list[str]:
        """Remove and return the neighbours whose awaited sequence number has arrived."""
        if not self.awaiting or self.selected is None:
            return []
        seqno = self.adverts[self.selected].seqno
        satisfied = [who for who, asked in self.awaiting.items() if not newer(asked, seqno)]
        for who in satisfied:
            del self.awaiting[who]
        return satisfied

    def selection_changed(self) -> bool:
        """Whether the selected route, or what it advertises, changed since the last call. Most
        adverts are of routes that are not selected."""
        via = self.selected
        selection = None if via is None else (via, self.distance_s, self.adverts[via])
        before, self.selection = self.selection, selection
        return before != selection

    def deselect(self) -> None:
        """Select no route, for a reason outside this origin's routes."""
        self.selected, self.distance_s = None, INFINITE
        self.ask, self.better_since_s, self._routes = (), None, None

    def neighbours_to_ask(self, now_s: float) -> tuple[str, ...]:
        """The neighbours to ask now for a higher sequence number: the nearest neighbour first; then
        all, new ones at once, the others repeatedly."""
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

    def forward(
        self, sender: str, request: SeqnoRequest, costs_s: Mapping[str, float], now_s: float
    ) -> Iterator[tuple[str, SeqnoRequest]]:
        """Forward a neighbour's request, unless it is a repetition. Yields the receivers and the
        messages."""
        if self.forwarded is not None:
            before, forwarded_s, _ = self.forwarded
            if now_s < forwarded_s + FORWARD_S and not newer(request.seqno, before.seqno):
                return
        nearest = self.selected or next(
            (n for n in self.distances_s(costs_s) if n != sender), sender
        )
        if nearest != sender and request.hop_limit > 1:
            further = msgspec.structs.replace(request, hop_limit=request.hop_limit - 1)
            self.forwarded = further, now_s, nearest
            yield nearest, further

    def forward_again(
        self, costs_s: Mapping[str, float], now_s: float
    ) -> Iterator[tuple[str, SeqnoRequest]]:
        """Forward the last request again if it is still awaited and the neighbour that got it is no
        longer the next hop: an answer over another route would not be advertised. Yields like
        `forward`."""
        if self.forwarded is None or not self.awaiting:
            return
        request, _, before = self.forwarded
        to = self.selected
        if to is None:
            if before in self.adverts:
                return
            others = self.distances_s(costs_s)
            to = next((neighbour for neighbour in others if neighbour not in self.awaiting), before)
        elif not newer(request.seqno, self.adverts[to].seqno):
            return
        if to != before and to not in self.awaiting:
            self.forwarded = request, now_s, to
            yield to, request

    def wake_s(self) -> float:
        """When to repeat the selection without any change."""
        if self.ask:
            return self._ask_again_s
        return INFINITE if self.better_since_s is None else self.better_since_s + SETTLE_S

    def states(self, costs_s: Mapping[str, float]) -> tuple[RouteState, ...]:
        """All routes, nearest first."""
        return tuple(
            RouteState(
                OriginRoute(neighbour, distance_s, self.adverts[neighbour].distance_s),
                self.adverts[neighbour].seqno,
                self.feasible(neighbour),
                neighbour == self.selected,
            )
            for neighbour, distance_s in self.distances_s(costs_s).items()
        )

    def routes(self, costs_s: Mapping[str, float]) -> tuple[OriginRoute, ...]:
        """The feasible routes: the selected one, then the others, nearest first."""
        if self._routes is None:
            routes = (
                OriginRoute(neighbour, distance_s, self.adverts[neighbour].distance_s)
                for neighbour, distance_s in self.distances_s(costs_s).items()
                if self.feasible(neighbour)
            )
            self._routes = tuple(sorted(routes, key=lambda route: route.neighbour != self.selected))
        return self._routes
