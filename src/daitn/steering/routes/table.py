"""The distance vector of capability summaries: reachable origins and their distances. Without I/O.

Each site is the origin of what it can do. Routes are kept per origin and advertised from neighbour
to neighbour as in Babel (RFC 8966): an origin's sequence number and a bound on distances (sections
3.5.1, 3.7.3, see `origin`) keep routes free of loops at every instant; a site with routes, none of
them feasible, asks the origin to increment its number (3.8.2). Unlike in Babel, links are reliable
and keep order while they are up, so that changes are sent alone and at once, and everything now and
then; an origin's offers travel with its route; and of too many offers only the best are advertised
(`aggregation`). An origin that is no longer advertised is retracted like an unreachable one.

Sites may belong to domains. A link between two domains carries no sites, only what each domain can
do (`domains`), and what other domains' border sites advertise. A border of this site's own domain
does not count while its site is reached inside: leaving a domain to come back is useless. It counts
otherwise, so that a domain in pieces is joined through others.

A shell calls `link_up`, `receive` and so on as things happen, then sends what `due` returns, and
calls `due` again at `next_due_s` at the latest. A site that restarts must appear down to its
neighbours before it is up again, as it forgot the bounds on what it advertised.

Traffic: urgent changes go out at once, those of the next 0.01 s together. Changes that can wait
(`Peer`) are deferred for a second, as everybody is busy after a failure. Changes of distance below
5 % wait for the refresh every 30 s. A link's cost counts as changed from 10 % and a millisecond on.
New editions of offers are rare (`own`). A request is forwarded once per `FORWARD_S`; a later number
goes at once to those who asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from daitn.steering.routes.advertised import Aggregation, AggregationLimits, best_by_key
from daitn.steering.routes.domains import Domain, Reached
from daitn.steering.routes.names import domain_of, site_of
from daitn.steering.routes.offers import check, checked_cost, far_apart
from daitn.steering.routes.origin import (
    UNREACHABLE_S,
    OriginExplanation,
    OriginRoute,
    OriginRoutes,
    RouteAdvert,
    count_up,
    newer,
)
from daitn.steering.routes.own import OwnOffers
from daitn.steering.routes.peer import EXPIRY_S, REFRESH_S, Peer
from daitn.steering.wire.offers import (
    INFINITE,
    Offer,
    RouteEntry,
    SeqnoRequest,
    Summary,
    Update,
)

__all__ = ["AggregationLimits", "OriginExplanation", "OriginRoute", "RouteTable"]

HOLD_S = 180.0
"""How long the bound of an unreachable origin is kept: longer than any neighbour may still believe
what it was sent (its expiry, plus the time until its next sweep)."""


class RouteTable:
    """A site's routes to all others, and what it advertises."""

    def __init__(
        self, site: str, now_s: float, limits: AggregationLimits | None = None, domain: str = ""
    ) -> None:
        """An empty `domain` means none. Raises `InvalidInput` for a malformed one."""
        self.site = site
        self.version = 0
        """Increases with every change that may affect a forwarding decision."""
        self._limits = limits or AggregationLimits()
        self._peers: dict[str, Peer] = {}
        self._costs_s: dict[str, float] = {}
        self._origins: dict[str, OriginRoutes] = {}
        self._domains: dict[str, None] = {}
        """Those that stand for domains."""
        self._offers = 0
        """The number of offers in all adverts."""
        self._aggregation = Aggregation(site, self._limits)
        self._seqno = 0
        """Sequence number of all origins that this site represents."""
        self._own = OwnOffers(now_s)
        self._domain = Domain(domain, site, self._limits, now_s)
        self._speaks_for = {site: self._own, **self._domain.origins}
        self._requests: list[tuple[str, SeqnoRequest]] = []
        self._cordoned: dict[str, str] = {}
        """Other sites to which nothing is sent, with reasons in words."""
        self._cordons = 0
        """Number of changes of these."""
        self.withdrawn = False
        """Whether this site forwards nothing: it advertises only its own offers."""
        self._wake_s: dict[str, float] = {}
        """Origins to select again without a change."""
        self._sweep_s = now_s + REFRESH_S

    # This site's offers

    def offer(self, offers: tuple[Offer, ...], now_s: float) -> None:
        """Set this site's own offers. Of several offers of a key, the best counts.

        Raises `Corrupt` if a value is not a number.
        """
        check(Update((RouteEntry(self.site, 0, 0.0, offers=offers),)))
        self._own.update(best_by_key(offers))
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

    def withdraw(self, withdrawn: bool) -> None:
        """Stop advertising how others are reached through this site, or resume it."""
        if withdrawn != self.withdrawn:
            self.withdrawn = withdrawn
            for origin in self._origins:
                self._changed(origin)

    def cordon(self, site: str, why: str) -> None:
        """Send nothing to another site, as its operator says; an empty `why` means it is back in
        service."""
        if self._cordoned.get(site, "") != why:
            self._cordoned.pop(site, None)
            if why:
                self._cordoned[site] = why
            self._cordons += 1
            self.version += 1

    @property
    def cordoned(self) -> Mapping[str, str]:
        """The sites to which nothing is sent, with reasons."""
        return self._cordoned

    # Domains

    @property
    def domain(self) -> str:
        """The domain of this site; empty means none."""
        return self._domain.name

    def set_domain(self, domain: str, now_s: float) -> None:
        """Move this site to another domain; empty means to none. One update tells each neighbour
        what to add and what to retract. Raises `InvalidInput`."""
        if domain != self.domain:
            self._domain = Domain(domain, self.site, self._limits, now_s)
            self._speaks_for = {self.site: self._own, **self._domain.origins}
            self._update_border(self._peers)
            for origin in self._domains:
                self._select(origin, now_s)

    def link_domain(self, neighbour: str, domain: str | None) -> None:
        """A neighbour now belongs to another domain; `None` means to this site's."""
        peer = self._peers.get(neighbour)
        if peer is not None and peer.domain != domain:
            peer.domain = domain
            self._update_border((neighbour,))

    def _update_border(self, moved: Iterable[str] = ()) -> None:
        """The border may have moved; links to `moved` may now cross it, or no longer do."""
        known = (self.site, *self._origins)
        self._domain.set_neighbours({peer.domain for peer in self._peers.values()}, known)
        for neighbour in moved:
            peer = self._peers[neighbour]
            peer.pending.update(self._speaks_for, self._origins, peer.sent)
        self.version += 1

    def _inside(self, origin: str) -> bool:
        """Whether an origin belongs to a border of this domain, at a site reachable inside."""
        if domain_of(origin) != self.domain:
            return False
        border = self._origins.get(site_of(origin))
        return border is not None and border.selected is not None

    # Links

    def link_up(
        self, neighbour: str, cost_s: float, now_s: float, domain: str | None = None
    ) -> None:
        """A link came up, or was replaced by a new one: everything is sent again. `domain` is the
        neighbour's, empty for none; `None` means this site's."""
        self.link_down(neighbour, now_s)
        self._costs_s[neighbour] = checked_cost(cost_s)
        self._peers[neighbour] = Peer(received_whole_s=now_s, send_whole_s=now_s, domain=domain)
        self._update_border()

    def link_cost(self, neighbour: str, cost_s: float, now_s: float) -> None:
        """Set a link's measured cost; changes within 10 % or a millisecond are ignored."""
        known_s = self._costs_s.get(neighbour)
        if known_s is None or not far_apart(known_s, checked_cost(cost_s), share=0.1, least=0.001):
            return
        self._costs_s[neighbour] = cost_s
        for origin, known in self._origins.items():
            if neighbour in known.adverts:
                self._select(origin, now_s)

    def link_down(self, neighbour: str, now_s: float) -> None:
        """A link went down: its neighbour's adverts no longer count."""
        if self._peers.pop(neighbour, None) is not None:
            for known in self._origins.values():
                known.awaiting.pop(neighbour, None)
            self._forget(neighbour, [*self._origins], now_s)
            del self._costs_s[neighbour]
            self._requests = [sent for sent in self._requests if sent[0] != neighbour]
            self._update_border()

    def neighbours(self) -> tuple[str, ...]:
        """The neighbours with a link that is up."""
        return tuple(sorted(self._peers))

    def reaches(self, neighbour: str) -> bool:
        """Whether the link to a neighbour is up."""
        return neighbour in self._peers

    # Summaries of neighbours

    def receive(self, neighbour: str, summary: Summary, now_s: float) -> None:
        """Process a neighbour's summary. Raises `Corrupt`, and then uses none of it."""
        peer = self._peers.get(neighbour)
        if peer is None:
            return
        check(summary)
        if isinstance(summary, SeqnoRequest):
            self._answer_request(neighbour, summary, now_s)
            return
        for entry in summary.routes:
            if site_of(entry.origin) == self.site:
                self._restore(entry)
            else:
                self._learn(neighbour, entry, now_s)
        if summary.whole:
            listed = {entry.origin for entry in summary.routes}
            self._forget(neighbour, self._origins.keys() - listed, now_s)
            peer.received_whole(now_s)

    def _restore(self, entry: RouteEntry) -> None:
        """Others know an earlier run of this site: continue from its numbers."""
        own = self._speaks_for.get(entry.origin)
        if own is None:
            return
        if newer(entry.seqno, self._seqno):
            self._count_to(count_up(entry.seqno))
            for origin in self._speaks_for:
                for peer in self._peers.values():
                    peer.await_seqno(origin)
        if own.restore(entry.edition):
            self._changed(entry.origin)

    def _count_to(self, seqno: int) -> None:
        self._seqno = seqno
        for origin in self._speaks_for:
            self._changed(origin)

    def _learn(self, neighbour: str, entry: RouteEntry, now_s: float) -> None:
        if entry.distance_s >= UNREACHABLE_S:
            self._forget(neighbour, (entry.origin,), now_s)
            return
        known = self._origins.get(entry.origin)
        if known is None:
            if len(self._origins) >= self._limits.most_origins:
                return
            known = self._origins[entry.origin] = OriginRoutes(unreachable_since_s=now_s)
            if domain_of(entry.origin) is not None:
                self._domains[entry.origin] = None
        before, offers = known.adverts.get(neighbour), entry.offers
        if offers is None:
            if before is None:
                # The offers were sent before this site forgot them: request them again.
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
                if peer is not None and origin in peer.deferred:
                    peer.pending.add(origin)
                self._select(origin, now_s)

    def _answer_request(self, neighbour: str, request: SeqnoRequest, now_s: float) -> None:
        """Count up, advertise what satisfies it, or forward it (RFC 8966, section 3.8.1.2)."""
        known = self._origins.get(request.origin)
        if site_of(request.origin) == self.site:
            if newer(request.seqno, self._seqno):
                self._count_to(request.seqno)
                self._peers[neighbour].await_seqno(request.origin)
                return
        elif known is None:
            return
        elif known.selected is None or newer(request.seqno, known.adverts[known.selected].seqno):
            known.awaiting[neighbour] = request.seqno
            self._requests += known.forward(neighbour, request, self._costs_s, now_s)
            return
        self._peers[neighbour].resend(request.origin)

    # Selection

    def _select(self, origin: str, now_s: float) -> None:
        """Select a route to `origin`, because routes changed or `wake_s` is due."""
        known = self._origins[origin]
        reached = known.selected is not None
        if self._inside(origin):
            known.deselect()
        else:
            known.select(self._costs_s, now_s)
        if known.selection_changed():
            if known.selection is None:
                self._aggregation.drop(origin)
            else:
                self._aggregation.put(origin, known.distance_s, known.selection[2].offers)
            self._changed(origin)
        self._touch(origin)
        self._requests += known.forward_again(self._costs_s, now_s)
        for neighbour in known.take_satisfied():
            if neighbour in self._peers:
                self._peers[neighbour].await_seqno(origin)
        if known.adverts:
            known.unreachable_since_s = None
        elif known.unreachable_since_s is None:
            known.unreachable_since_s = now_s
        if (asked := known.neighbours_to_ask(now_s)) and known.bound is not None:
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
        """The routes to `origin` may have changed."""
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
        """The messages to send now, with their neighbours, in this order."""
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
            if now_s >= peer.due_s() and (update := self._update(neighbour, peer, entries, now_s)):
                messages.append((neighbour, update))
        messages += [
            (to, request)
            for to, request in self._requests
            if not self._domain.hides(request.origin, self._peers[to].domain)
        ]
        self._requests = []
        return messages

    def _sweep(self, now_s: float) -> None:
        self._sweep_s = now_s + REFRESH_S
        for neighbour, peer in self._peers.items():
            if now_s >= peer.received_whole_s + EXPIRY_S:
                peer.synced = False
                self._forget(neighbour, [*self._origins], now_s)
        for origin, known in [*self._origins.items()]:
            if (
                known.unreachable_since_s is not None
                and now_s >= known.unreachable_since_s + HOLD_S
            ):
                del self._origins[origin]
                self._domains.pop(origin, None)

    def _update(
        self, neighbour: str, peer: Peer, entries: dict[str, RouteEntry | None], now_s: float
    ) -> Update | None:
        """`entries` caches the adverts of origins, for all neighbours."""

        def known(origin: str) -> RouteEntry | None:
            """`None` means it is not reached this way. Split horizon: the next hop of the selected
            route is sent nothing about its origin."""
            routes = self._origins.get(origin)
            if (routes is not None and routes.selected == neighbour) or hides(origin, peer.domain):
                return None
            if origin not in entries:
                entries[origin] = self._entry(origin)
            return entries[origin]

        def reaches(origin: str) -> bool:
            """Whether the neighbour has another route. If this site's route is gone, the neighbour
            must know at once nevertheless, as it may be about to take that one; not if it is itself
            the next hop."""
            routes = self._origins.get(origin)
            if routes is None or neighbour not in routes.adverts:
                return False
            return routes.selected == neighbour or known(origin) is not None

        hides = self._domain.hides
        update = peer.update(known, reaches, (*self._speaks_for, *self._origins), now_s)
        for entry in update.routes if update is not None else ():
            routes = self._origins.get(entry.origin)
            if routes is None or entry.distance_s >= INFINITE:
                continue
            if routes.tighten_bound(entry.seqno, entry.distance_s):
                self._touch(entry.origin)
        return update

    def _entry(self, origin: str) -> RouteEntry | None:
        """The entry on `origin` for neighbours; `None` means that it is not reached this way."""
        if (own := self._speaks_for.get(origin)) is not None:
            return RouteEntry(origin, self._seqno, 0.0, own.edition, tuple(own.offers.values()))
        offers, known = self._aggregation.advertised(origin), self._origins.get(origin)
        if self.withdrawn or known is None or known.selected is None or offers is None:
            return None
        advert = known.adverts[known.selected]
        return RouteEntry(origin, advert.seqno, known.distance_s, advert.edition, offers)

    # Queries

    def routes_to(self, origin: str) -> tuple[OriginRoute, ...]:
        """All feasible routes to `origin`: the selected one, then the others, nearest first."""
        known = self._origins.get(origin)
        return () if known is None or known.selected is None else known.routes(self._costs_s)

    def offering(self, key: str) -> tuple[tuple[str, Offer], ...]:
        """The origins that offer a key, this site included, sorted. `answer:` matches all answers;
        an offer of `answer:medicine/*` counts for any topic in it."""
        return self._aggregation.offers.matching(key)

    def versions(self, key: str) -> tuple[int | None, ...]:
        """Changes whenever `offering` may, or the routes to one of its origins; `version` counts
        changes of all keys."""
        return (self._cordons, *self._aggregation.offers.versions(key))

    def offered(self, origin: str) -> tuple[Offer, ...]:
        """The offers of an origin: this site, or a reachable one."""
        return tuple(self._aggregation.offers.of.get(origin, {}).values())

    def origins(self) -> tuple[str, ...]:
        """The reachable origins."""
        return tuple(sorted(o for o, known in self._origins.items() if known.selected is not None))

    def explain(self, origin: str) -> OriginExplanation | None:
        """Everything known about the routes to `origin`; `None` means nothing."""
        known = self._origins.get(origin)
        if known is None:
            return None
        advertised = known.selected is not None and self._aggregation.advertised(origin) is not None
        return OriginExplanation(origin, known.bound, known.states(self._costs_s), advertised)
