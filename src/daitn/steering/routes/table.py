"""The distance vector of capability summaries, without I/O: who can be reached by whom, how far.

Each site is the origin of what it can do. Ways are kept per origin and told from neighbour to
neighbour as in Babel (RFC 8966): an origin's number and a bound on distances (sections 3.5.1,
3.7.3, see `routes_origin`) keep ways free of loops at every instant; a site that knows ways, but
none of them feasible, asks the origin to count up (3.8.2). What differs from Babel: links are
reliable and keep order while they are up, so that only changes are told, at once, and everything
now and then; what an origin offers goes with its way; and of too many offers only the best are told
on (`aggregation`). An origin that is not told on any more is retracted, as one out of reach.

Sites may belong to domains. Over a link between two domains no site is told of, only what each
domain can do (`domains`), and of other domains what their border sites say. A domain's border does
not count for those who reach its site inside: there is no use in leaving a domain to come back. It
does for those who do not, so that a domain in pieces is joined through others.

A shell calls `link_up`, `heard`, ... as things happen, then sends what `due` returns, and calls
`due` again at `next_due_s` at the latest. A site that restarts is expected to be noticed as down
by its neighbours before it is up again, as it forgot the bounds on what it told.

How much is said: what others must know goes out at once, that of the next 0.01 s together; what
can wait (`Peer`) waits for a second, as after a failure all are busy. Distances that changed by
less than 5 % wait for the refresh every 30 s. A link's cost counts as changed from 10 % and a
millisecond on. New editions of offers are rare (`routes_own`). A request is passed on once per
`PASS_ON_S`; a later number is told at once to who asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from daitn.steering.routes.aggregation import Aggregation, AggregationLimits, best_by_key
from daitn.steering.routes.domains import Domain, Reached
from daitn.steering.routes.names import domain_of, site_of
from daitn.steering.routes.offers import check, checked_cost, far_apart
from daitn.steering.routes.origin import (
    FAR_S,
    Explained,
    OriginRoutes,
    RouteAdvert,
    Via,
    Way,
    count_up,
    newer,
)
from daitn.steering.routes.own import Own
from daitn.steering.routes.peer import EXPIRY_S, REFRESH_S, Peer
from daitn.steering.wire.summaries import (
    INFINITE,
    Offer,
    RouteEntry,
    SeqnoRequest,
    Summary,
    Update,
)

__all__ = ["AggregationLimits", "Explained", "RouteTable", "Via", "Way"]

HOLD_S = 180.0
"""How long the bound of an origin out of reach is kept: longer than any neighbour may still
believe what it was told (its expiry, and the time until that is looked for)."""


class RouteTable:
    """What one site knows of all others, and what it tells."""

    def __init__(
        self, site: str, now_s: float, limits: AggregationLimits | None = None, domain: str = ""
    ) -> None:
        """`domain` is empty where the site belongs to none. Raises `InvalidInput` for a bad one."""
        self.site = site
        self.version = 0
        """Counts up with every change that may change a forwarding decision."""
        self._limits = limits or AggregationLimits()
        self._peers: dict[str, Peer] = {}
        self._costs_s: dict[str, float] = {}
        self._origins: dict[str, OriginRoutes] = {}
        self._domains: dict[str, None] = {}
        """Those of them that stand for domains."""
        self._offers = 0
        """In all that neighbours told of them."""
        self._aggregation = Aggregation(site, self._limits)
        self._seqno = 0
        """Of all origins for which this site speaks."""
        self._own = Own(now_s)
        self._domain = Domain(domain, site, self._limits, now_s)
        self._speaks_for = {site: self._own, **self._domain.origins}
        self._requests: list[tuple[str, SeqnoRequest]] = []
        self._wake_s: dict[str, float] = {}
        """Origins to look at again though nothing changed."""
        self._sweep_s = now_s + REFRESH_S

    # What this site can do

    def offer(self, offers: tuple[Offer, ...], now_s: float) -> None:
        """What this site itself can do from now on. Of several offers of a key, the best counts.

        Raises `Corrupt` where one is not a number.
        """
        check(Update((RouteEntry(self.site, 0, 0.0, offers=offers),)))
        self._own.intent(best_by_key(offers))
        self._publish(now_s)

    def _publish(self, now_s: float) -> None:
        if self._own.publish(now_s):
            self._aggregation.put(self.site, 0.0, self._own.offers.values())
            self._changed(self.site)
        if changed := self._domain.refresh(self._reached, now_s):
            for peer in self._peers.values():
                peer.pending |= changed

    def _reached(self, origin: str) -> Reached:
        known = self._origins.get(origin)
        return 0.0 if known is None else known.distance_s, self.offered(origin)

    # Domains

    @property
    def domain(self) -> str:
        """The domain of this site; empty: none."""
        return self._domain.name

    def set_domain(self, domain: str, now_s: float) -> None:
        """This site belongs to another domain from now on, or (empty) to none. Each neighbour
        hears in one message what it is to know, and what no longer. Raises `InvalidInput`."""
        if domain != self.domain:
            self._domain = Domain(domain, self.site, self._limits, now_s)
            self._speaks_for = {self.site: self._own, **self._domain.origins}
            self._draw_border(self._peers)
            for origin in self._domains:
                self._select(origin, now_s)

    def link_domain(self, neighbour: str, domain: str | None) -> None:
        """A neighbour belongs to another domain from now on; None: the same as this site."""
        peer = self._peers.get(neighbour)
        if peer is not None and peer.domain != domain:
            peer.domain = domain
            self._draw_border((neighbour,))

    def _draw_border(self, moved: Iterable[str] = ()) -> None:
        """The border may run elsewhere; on the links to some neighbours it came or went."""
        known = (self.site, *self._origins)
        self._domain.border({peer.domain for peer in self._peers.values()}, known)
        for neighbour in moved:
            peer = self._peers[neighbour]
            peer.pending.update(self._speaks_for, self._origins, peer.told)
        self.version += 1

    def _inside(self, origin: str) -> bool:
        """Whether an origin is the border of this very domain, at a site that is reached inside."""
        if domain_of(origin) != self.domain:
            return False
        border = self._origins.get(site_of(origin))
        return border is not None and border.selected is not None

    # Links

    def link_up(
        self, neighbour: str, cost_s: float, now_s: float, domain: str | None = None
    ) -> None:
        """A link came up, or one that seemed up is a new one: all is told anew. `domain` is the
        neighbour's, empty where it belongs to none; None: the same as this site's."""
        self.link_down(neighbour, now_s)
        self._costs_s[neighbour] = checked_cost(cost_s)
        self._peers[neighbour] = Peer(heard_s=now_s, whole_s=now_s, domain=domain)
        self._draw_border()

    def link_cost(self, neighbour: str, cost_s: float, now_s: float) -> None:
        """A link was measured again; changes within 10 % or a millisecond are ignored."""
        known_s = self._costs_s.get(neighbour)
        if known_s is None or not far_apart(known_s, checked_cost(cost_s), share=0.1, least=0.001):
            return
        self._costs_s[neighbour] = cost_s
        for origin, known in self._origins.items():
            if neighbour in known.adverts:
                self._select(origin, now_s)

    def link_down(self, neighbour: str, now_s: float) -> None:
        """A link is down: what its neighbour said does not count any more."""
        if self._peers.pop(neighbour, None) is not None:
            for known in self._origins.values():
                known.awaiting.pop(neighbour, None)
            self._forget(neighbour, [*self._origins], now_s)
            del self._costs_s[neighbour]
            self._requests = [sent for sent in self._requests if sent[0] != neighbour]
            self._draw_border()

    def neighbours(self) -> tuple[str, ...]:
        """The neighbours to which a link is up."""
        return tuple(sorted(self._peers))

    def reaches(self, neighbour: str) -> bool:
        """Whether the link to a neighbour is up."""
        return neighbour in self._peers

    # What neighbours say

    def heard(self, neighbour: str, summary: Summary, now_s: float) -> None:
        """A neighbour said something. Raises `Corrupt`, and then takes nothing of it."""
        peer = self._peers.get(neighbour)
        if peer is None:
            return
        check(summary)
        if isinstance(summary, SeqnoRequest):
            self._requested(neighbour, summary, now_s)
            return
        for entry in summary.routes:
            if site_of(entry.origin) == self.site:
                self._restore(entry)
            else:
                self._learn(neighbour, entry, now_s)
        if summary.whole:
            said = {entry.origin for entry in summary.routes}
            self._forget(neighbour, self._origins.keys() - said, now_s)
            peer.greet(now_s)

    def _restore(self, entry: RouteEntry) -> None:
        """Others know of an earlier life of this site: go on from there."""
        own = self._speaks_for.get(entry.origin)
        if own is None:
            return
        if newer(entry.seqno, self._seqno):
            self._count_to(count_up(entry.seqno))
            for origin in self._speaks_for:
                for peer in self._peers.values():
                    peer.await_number(origin)
        if own.restore(entry.edition):
            self._changed(entry.origin)

    def _count_to(self, seqno: int) -> None:
        self._seqno = seqno
        for origin in self._speaks_for:
            self._changed(origin)

    def _learn(self, neighbour: str, entry: RouteEntry, now_s: float) -> None:
        if entry.distance_s >= FAR_S:
            self._forget(neighbour, (entry.origin,), now_s)
            return
        known = self._origins.get(entry.origin)
        if known is None:
            if len(self._origins) >= self._limits.most_origins:
                return
            known = self._origins[entry.origin] = OriginRoutes(gone_s=now_s)
            if domain_of(entry.origin) is not None:
                self._domains[entry.origin] = None
        before, offers = known.adverts.get(neighbour), entry.offers
        if offers is None:
            if before is None:
                # Said in a time of which nothing is left here: ask to hear it again.
                self._requests.append((neighbour, SeqnoRequest(entry.origin, entry.seqno)))
                return
            offers = before.offers
        advert = RouteAdvert(entry.seqno, entry.distance_s, entry.edition, offers)
        if advert != before:
            more = len(offers) - (len(before.offers) if before is not None else 0)
            if more > 0 and self._offers + more > self._limits.most_offers:
                return
            self._offers += more
            known.adverts[neighbour] = advert
            self._select(entry.origin, now_s)

    def _forget(self, neighbour: str, origins: Iterable[str], now_s: float) -> None:
        for origin in origins:
            known = self._origins.get(origin)
            if known is not None and (gone := known.adverts.pop(neighbour, None)) is not None:
                self._offers -= len(gone.offers)
                peer = self._peers.get(neighbour)
                if peer is not None and origin in peer.later:
                    peer.pending.add(origin)
                self._select(origin, now_s)

    def _requested(self, neighbour: str, request: SeqnoRequest, now_s: float) -> None:
        """RFC 8966, section 3.8.1.2: count up, tell what satisfies it, or pass it on."""
        known = self._origins.get(request.origin)
        if site_of(request.origin) == self.site:
            if newer(request.seqno, self._seqno):
                self._count_to(request.seqno)
                self._peers[neighbour].await_number(request.origin)
                return
        elif known is None:
            return
        elif known.selected is None or newer(request.seqno, known.adverts[known.selected].seqno):
            known.awaiting[neighbour] = request.seqno
            self._requests += known.passed(neighbour, request, self._costs_s, now_s)
            return
        self._peers[neighbour].repeat(request.origin)

    # Selection

    def _select(self, origin: str, now_s: float) -> None:
        """Ways to `origin` changed, or the time came to look at them again."""
        known = self._origins[origin]
        reached = known.selected is not None
        if self._inside(origin):
            known.leave()
        else:
            known.select(self._costs_s, now_s)
        if known.moved():
            if known.shown is None:
                self._aggregation.drop(origin)
            else:
                self._aggregation.put(origin, known.distance_s, known.shown[2].offers)
            self._changed(origin)
        self._touch(origin)
        self._requests += known.passed_again(self._costs_s, now_s)
        for neighbour in known.heard_of():
            if neighbour in self._peers:
                self._peers[neighbour].await_number(origin)
        if known.adverts:
            known.gone_s = None
        elif known.gone_s is None:
            known.gone_s = now_s
        if (asked := known.ask_now(now_s)) and known.bound is not None:
            request = SeqnoRequest(origin, count_up(known.bound[0]))
            self._requests += [(neighbour, request) for neighbour in asked]
        if (wake_s := known.wake_s()) < INFINITE:
            self._wake_s[origin] = wake_s
        else:
            self._wake_s.pop(origin, None)
        if reached != (known.selected is not None):
            for border in self._domains:
                if site_of(border) == origin != border:
                    self._select(border, now_s)

    def _touch(self, origin: str) -> None:
        """The ways to `origin` may be others than before."""
        self.version += 1
        self._aggregation.offers.touch(origin)

    def _changed(self, origin: str) -> None:
        self.version += 1
        self._domain.touch(origin)
        for peer in self._peers.values():
            peer.pending.add(origin)

    # What to send

    def next_due_s(self) -> float:
        """When `due` should be called again at the latest; a time in the past means now."""
        if self._requests:
            return -INFINITE
        return min(
            self._sweep_s,
            self._own.publish_s,
            self._domain.due_s(),
            *self._wake_s.values(),
            *(peer.due_s() for peer in self._peers.values()),
        )

    def due(self, now_s: float) -> list[tuple[str, Summary]]:
        """What to send to which neighbour now, in this order."""
        if now_s >= self._sweep_s:
            self._sweep(now_s)
        for origin in sorted(o for o, wake_s in self._wake_s.items() if now_s >= wake_s):
            self._select(origin, now_s)
        self._publish(now_s)
        changed = self._aggregation.refresh()
        messages: list[tuple[str, Summary]] = []
        entries: dict[str, RouteEntry | None] = {}
        for neighbour, peer in sorted(self._peers.items()):
            peer.pending |= changed
            if now_s >= peer.due_s() and (update := self._tell(neighbour, peer, entries, now_s)):
                messages.append((neighbour, update))
        messages += [
            (to, said)
            for to, said in self._requests
            if not self._domain.hides(said.origin, self._peers[to].domain)
        ]
        self._requests = []
        return messages

    def _sweep(self, now_s: float) -> None:
        self._sweep_s = now_s + REFRESH_S
        for neighbour, peer in self._peers.items():
            if now_s >= peer.heard_s + EXPIRY_S:
                peer.greeted = False
                self._forget(neighbour, [*self._origins], now_s)
        for origin, known in [*self._origins.items()]:
            if known.gone_s is not None and now_s >= known.gone_s + HOLD_S:
                del self._origins[origin]
                self._domains.pop(origin, None)

    def _tell(
        self, neighbour: str, peer: Peer, entries: dict[str, RouteEntry | None], now_s: float
    ) -> Update | None:
        """`entries` keeps what is to be known of origins, for all neighbours."""

        def known(origin: str) -> RouteEntry | None:
            """None: it is not reached this way. Split horizon: nothing is told to the neighbour by
            which it is reached."""
            way = self._origins.get(origin)
            if (way is not None and way.selected == neighbour) or hides(origin, peer.domain):
                return None
            if origin not in entries:
                entries[origin] = self._entry(origin)
            return entries[origin]

        def reaches(origin: str) -> bool:
            """Whether the neighbour reaches it otherwise. It is told of a way that is gone at once
            all the same: it may be about to take it. If it is the way, it will not."""
            way = self._origins.get(origin)
            if way is None or neighbour not in way.adverts:
                return False
            return way.selected == neighbour or known(origin) is not None

        hides = self._domain.hides
        update = peer.tell(known, reaches, (*self._speaks_for, *self._origins), now_s)
        for entry in update.routes if update is not None else ():
            way = self._origins.get(entry.origin)
            if way is None or entry.distance_s >= INFINITE:
                continue
            if way.promise(entry.seqno, entry.distance_s):
                self._touch(entry.origin)
        return update

    def _entry(self, origin: str) -> RouteEntry | None:
        """What neighbours should know of `origin`; None: that it is not reached this way."""
        if (own := self._speaks_for.get(origin)) is not None:
            return RouteEntry(origin, self._seqno, 0.0, own.edition, tuple(own.offers.values()))
        offers, known = self._aggregation.told(origin), self._origins.get(origin)
        if known is None or known.selected is None or offers is None:
            return None
        advert = known.adverts[known.selected]
        return RouteEntry(origin, advert.seqno, known.distance_s, advert.edition, offers)

    # What is known

    def routes_to(self, origin: str) -> tuple[Via, ...]:
        """All neighbours by which `origin` is reached without a loop: the selected one, then the
        others, the nearest first."""
        known = self._origins.get(origin)
        return () if known is None or known.selected is None else known.vias(self._costs_s)

    def offering(self, key: str) -> tuple[tuple[str, Offer], ...]:
        """Who offers that, of all that are reached and this site, in the order of their names.
        `answer:` asks for all answers; who offers `answer:medicine/*` offers any topic of it."""
        return self._aggregation.offers.matching(key)

    def versions(self, key: str) -> tuple[int | None, ...]:
        """The same as before while nothing changed of what `offering` gives, and of the ways to
        it; `version` counts changes of all keys."""
        return self._aggregation.offers.versions(key)

    def offered(self, origin: str) -> tuple[Offer, ...]:
        """What an origin that is reached offers, or this site."""
        return tuple(self._aggregation.offers.of.get(origin, {}).values())

    def origins(self) -> tuple[str, ...]:
        """The origins that are reached."""
        return tuple(sorted(o for o, known in self._origins.items() if known.selected is not None))

    def explain(self, origin: str) -> Explained | None:
        """All that is known of the ways to `origin`; None: nothing."""
        known = self._origins.get(origin)
        if known is None:
            return None
        told_on = known.selected is not None and self._aggregation.told(origin) is not None
        return Explained(origin, known.bound, known.ways(self._costs_s), told_on)
