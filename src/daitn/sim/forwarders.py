"""A network of live forwarders under virtual time: links with delay, serving sites, failures."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from daitn.objects.identifiers import SiteId
from daitn.sim.clock import Clock
from daitn.steering.commands import Advertise, Command, Deliver, Drop, Return, Send
from daitn.steering.forwarder import Forwarder, ForwarderSettings
from daitn.steering.next_hops import LOCAL
from daitn.steering.routes.table import AggregationLimits
from daitn.steering.wire.offers import Offer, decode_summary, encode_summary
from daitn.steering.wire.packet import Packet, PacketKind, decode_packet, encode_packet
from daitn.steering.wire.replies import answer_to

__all__ = ["ForwarderNetwork", "Returned", "SimulatedForwarder"]


@dataclass(frozen=True, slots=True)
class Returned:
    """A packet that came back to its origin."""

    site: str
    packet: Packet
    at_s: float
    taken_s: float


@dataclass
class SimulatedForwarder:
    """A site: its forwarder, and what it serves."""

    forwarder: Forwarder
    offers: tuple[Offer, ...]
    slots: int
    serve_s: Callable[[Packet], float]
    domain: str = ""
    busy: int = 0
    waiting: deque[Packet] = field(default_factory=deque)
    wake_s: float = float("inf")
    life: int = 0

    def offered(self) -> tuple[Offer, ...]:
        """Its offers, with the time that one more object would wait now."""
        ahead = self.busy + len(self.waiting) - self.slots + 1
        return tuple(
            _waiting(offer, max(0, ahead) * offer.serve_s / self.slots) if offer.serve_s else offer
            for offer in self.offers
        )


def _waiting(offer: Offer, wait_s: float) -> Offer:
    return Offer(
        offer.key, offer.fit, offer.trust, offer.serve_s, wait_s, offer.price_usd, offer.amount,
        offer.jurisdiction, offer.owner, offer.keeps, offer.at_s,
        offer.abilities, offer.context_tokens, offer.languages,
    )  # fmt: skip


class ForwarderNetwork:
    """Simulates the network; call `run`.

    Both ends of a link notice a failure `detect_s` after it happened; packets on a failed link are
    lost.
    """

    def __init__(
        self,
        *,
        detect_s: float = 0.15,
        settings: ForwarderSettings | None = None,
        limits: AggregationLimits | None = None,
        load_every_s: float = 1.0,
        coded: bool = True,
    ) -> None:
        """`coded`: whether to encode and decode what crosses a link.

        Without it a run is faster, and the counts are the same.
        """
        self.clock = Clock()
        self.detect_s, self.load_every_s = detect_s, load_every_s
        self.settings, self.limits, self.coded = settings, limits, coded
        self.sites: dict[str, SimulatedForwarder] = {}
        self.links: dict[frozenset[str], float] = {}
        """Links that are up, to their one-way delay in seconds."""
        self.returned: list[Returned] = []
        self.delivered: list[tuple[str, Packet]] = []
        self.counts: Counter[str] = Counter()
        self.on_return: Callable[[Returned], None] = self.returned.append
        self.on_deliver: Callable[[str, Packet], None] = lambda site, packet: self.delivered.append(
            (site, packet)
        )
        self._sessions: dict[frozenset[str], int] = {}
        self._arrives_s: dict[tuple[str, str], float] = {}

    @property
    def now_s(self) -> float:
        """Virtual seconds since the network began."""
        return self.clock.now_s

    # Topology

    def add(
        self,
        site: str,
        offers: tuple[Offer, ...] = (),
        *,
        slots: int = 8,
        serve_s: Callable[[Packet], float] = lambda packet: 0.0,
        domain: str = "",
    ) -> None:
        """Add a site. It also offers to deliver replies to its own packets."""
        own = (*offers, Offer(f"home:{site}"))
        forwarder = Forwarder(site, self.now_s, self.settings, self.limits, domain)
        self.sites[site] = simulated = SimulatedForwarder(forwarder, own, slots, serve_s, domain)
        forwarder.routes.offer(simulated.offered(), self.now_s)
        if offers:
            self._report(site, simulated.life)

    def offer(self, site: str, offers: tuple[Offer, ...]) -> None:
        """Replace what a site offers."""
        simulated = self.sites[site]
        simulated.offers = (*offers, Offer(f"home:{site}"))
        simulated.forwarder.routes.offer(simulated.offered(), self.now_s)
        self._poll(site)

    def connect(self, a: str, b: str, delay_s: float) -> None:
        """Bring a link up; both ends notice."""
        link = frozenset((a, b))
        self.links[link] = delay_s
        self._sessions[link] = self._sessions.get(link, 0) + 1
        for here, neighbour in ((a, b), (b, a)):
            forwarder = self.sites[here].forwarder
            domain = self.sites[neighbour].domain
            self._do(here, forwarder.link_up(SiteId(neighbour), delay_s, self.now_s, domain))

    def switch(self, site: str, domain: str) -> None:
        """Move a site to another domain; its neighbours are informed."""
        simulated = self.sites[site]
        simulated.domain = domain
        simulated.forwarder.set_domain(domain, self.now_s)
        for link in self.links:
            for neighbour in link - {site} if site in link else ():
                self._cross(site, neighbour, self._domain_arrival(neighbour, site, domain))
        self._poll(site)

    def _domain_arrival(self, neighbour: str, site: str, domain: str) -> Callable[[], None]:
        def arrive() -> None:
            self.sites[neighbour].forwarder.link_domain(site, domain)
            self._poll(neighbour)

        return arrive

    def disconnect(self, a: str, b: str) -> None:
        """Fail a link."""
        link = frozenset((a, b))
        if self.links.pop(link, None) is None:
            return
        session = self._sessions[link]
        for here, neighbour in ((a, b), (b, a)):
            self.clock.after(self.detect_s, self._noticing(here, neighbour, session))

    def _noticing(self, here: str, neighbour: str, session: int) -> Callable[[], None]:
        life = self.sites[here].life

        def noticed() -> None:
            if self._sessions[frozenset((here, neighbour))] != session:
                return
            if self.sites[here].life == life:
                self._do(here, self.sites[here].forwarder.link_down(neighbour, self.now_s))

        return noticed

    def crash(self, site: str) -> list[tuple[str, float]]:
        """Fail a site with all its state and work; returns its links."""
        lost = [
            (next(iter(link - {site})), delay_s)
            for link, delay_s in self.links.items()
            if site in link
        ]
        simulated = self.sites[site]
        for neighbour, _ in lost:
            self.disconnect(site, neighbour)
        fresh = Forwarder(site, self.now_s, self.settings, self.limits, simulated.domain)
        self.sites[site] = SimulatedForwarder(
            fresh,
            simulated.offers,
            simulated.slots,
            simulated.serve_s,
            simulated.domain,
            life=simulated.life + 1,
        )
        fresh.routes.offer(simulated.offers, self.now_s)
        self._report(site, simulated.life + 1)
        return lost

    # Events

    def send(self, site: str, packet: Packet) -> None:
        """Send an object from a site."""
        self._do(site, self.sites[site].forwarder.packet(LOCAL, packet, self.now_s))

    def run(self, for_s: float) -> None:
        """Let this much time pass."""
        self.clock.after(for_s, lambda: None)
        until_s = self.now_s + for_s
        done = False

        def end() -> None:
            nonlocal done
            done = True

        self.clock.at(until_s, end)
        while not done:
            self.clock.step()

    def _do(self, site: str, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(neighbour, packet):
                    self._carry(site, neighbour, packet)
                case Advertise(neighbour, _):
                    self._advertise(site, command)
                case Deliver(packet):
                    self.on_deliver(site, packet)
                    self._serve(site, packet)
                case Return(packet, taken_s):
                    self.on_return(Returned(site, packet, self.now_s, taken_s))
                case Drop(_, _, reason):
                    self.counts[f"dropped: {reason}"] += 1
        self._poll(site)

    def _poll(self, site: str) -> None:
        simulated = self.sites[site]
        next_s = simulated.forwarder.next_s()
        if next_s <= self.now_s:
            self._do(site, simulated.forwarder.tick(self.now_s))
        elif next_s < simulated.wake_s:
            simulated.wake_s = next_s
            self.clock.at(next_s, lambda: self._wake(site, simulated))

    def _wake(self, site: str, simulated: SimulatedForwarder) -> None:
        if self.sites[site] is simulated and self.now_s >= simulated.wake_s:
            simulated.wake_s = float("inf")
            self._poll(site)

    def _carry(self, site: str, neighbour: str, packet: Packet) -> None:
        self.counts[packet.kind.name] += 1
        if packet.kind is PacketKind.REFUSAL:
            self.counts["refusal bytes"] += len(encode_packet(packet))
        wire = encode_packet(packet) if self.coded else b""

        def arrive() -> None:
            forwarder = self.sites[neighbour].forwarder
            received = decode_packet(wire) if self.coded else packet
            self._do(neighbour, forwarder.packet(site, received, self.now_s))

        self._cross(site, neighbour, arrive)

    def _advertise(self, site: str, advert: Advertise) -> None:
        self.counts["summaries"] += 1
        wire = encode_summary(advert.summary)
        self.counts["summary bytes"] += len(wire)

        def arrive() -> None:
            forwarder = self.sites[advert.neighbour].forwarder
            received = decode_summary(wire) if self.coded else advert.summary
            forwarder.receive_summary(site, received, self.now_s)
            self._poll(advert.neighbour)

        self._cross(site, advert.neighbour, arrive)

    def _cross(self, here: str, neighbour: str, arrive: Callable[[], None]) -> None:
        link = frozenset((here, neighbour))
        delay_s = self.links.get(link)
        if delay_s is None:
            return
        session = self._sessions[link]
        # Links keep order.
        at_s = max(self.now_s + delay_s, self._arrives_s.get((here, neighbour), 0.0))
        self._arrives_s[here, neighbour] = at_s

        def land() -> None:
            if link in self.links and self._sessions[link] == session:
                arrive()

        self.clock.at(at_s, land)

    # Serving

    def _serve(self, site: str, packet: Packet) -> None:
        simulated = self.sites[site]
        if simulated.busy >= simulated.slots:
            simulated.waiting.append(packet)
            return
        simulated.busy += 1
        self.clock.after(simulated.serve_s(packet), lambda: self._served(site, simulated, packet))

    def _served(self, site: str, simulated: SimulatedForwarder, packet: Packet) -> None:
        if self.sites[site] is not simulated:
            return
        simulated.busy -= 1
        if simulated.waiting:
            self._serve(site, simulated.waiting.popleft())
        self._do(
            site, simulated.forwarder.packet(LOCAL, answer_to(packet, site.encode()), self.now_s)
        )

    def _report(self, site: str, life: int) -> None:
        """Update the offered waiting times periodically, as facilities do."""
        simulated = self.sites[site]
        if simulated.life != life:
            return
        simulated.forwarder.routes.offer(simulated.offered(), self.now_s)
        self._poll(site)
        self.clock.after(self.load_every_s, lambda: self._report(site, life))
