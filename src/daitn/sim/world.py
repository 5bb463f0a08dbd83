"""A simulated world: facilities, gateways and their messages to each other, under one clock.

Everything that decides is live code: each gateway has its own QRRT, fed as in a live network, and
consults it for every query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from daitn.control.queries.context import QueryContext
from daitn.control.queries.lengths import AnswerLengths, LengthModel
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Serving
from daitn.sim.choosing import Chooser
from daitn.sim.clock import Clock
from daitn.sim.facility import SimulatedFacility
from daitn.sim.faults import Dies, Fault, LinkSlows, Slows
from daitn.sim.gateway import SimulatedGateway, path_rtt_s
from daitn.sim.links import SimulatedLinks
from daitn.sim.load import Arrival
from daitn.sim.network import Network, described, findings
from daitn.sim.oracle import Oracle
from daitn.sim.query import Ended
from daitn.topology.qrrt.snapshot import deployment_id

__all__ = ["World"]

REPORTED_EVERY_S = 1.0
LOOKED_EVERY_S = 0.1
"""Facilities check their load this often, and report when it changed or `REPORTED_EVERY_S` has
passed, as live ones do."""
MEASURED_EVERY_S = 5.0
"""Gateways measure their links this often."""
LOST_AFTER_S = 1.0
"""A node that is silent for this long counts as lost, as in the membership."""


class World:
    """Runs one recorded load. `make` gives each gateway its chooser."""

    def __init__(
        self,
        network: Network,
        make: Callable[[World], Chooser],
        *,
        prefer: Mapping[str, float] | None = None,
        faults: Sequence[Fault] = (),
        looked_every_s: float = LOOKED_EVERY_S,
        seed: int = 0,
        lengths: Callable[[], LengthModel] = AnswerLengths,
    ) -> None:
        """`looked_every_s`: interval at which a facility checks whether its load changed.
        `lengths`: the gateways' estimator of answer lengths."""
        self.clock = Clock()
        self.links = SimulatedLinks(network)
        self.facilities = {
            deployment_id(spec.name, site): SimulatedFacility(spec, self.clock)
            for site, spec in network.deployments
        }
        self._network = network
        self._looked_every_s = looked_every_s
        self._alive = {facility.site for facility in network.facilities}
        self._ended: list[Ended] = []
        self.gateways = {
            site: SimulatedGateway(
                site,
                self.clock,
                self.links,
                self.facilities,
                make(self),
                prefer or {},
                seed,
                self._ended.append,
                lengths(),
            )
            for site in network.gateways
        }
        self._begin()
        for fault in faults:
            self._set(fault)

    def oracle(self, *, caring: bool = False, guessing: bool = False) -> Oracle:
        """The oracle of this world; see `Oracle`."""

        def rtt_s(context: QueryContext, row: int) -> float:
            return path_rtt_s(self.links, context, row)

        return Oracle(self.facilities, rtt_s, caring=caring, guessing=guessing)

    def run(self, arrivals: Sequence[Arrival]) -> tuple[Ended, ...]:
        """Run all queries to their end; returns them in the order in which they ended."""
        return tuple(self.stream(arrivals))

    def stream(self, arrivals: Iterable[Arrival]) -> Iterator[Ended]:
        """Run queries to their end, and yield each when it has ended. Only the next one of
        `arrivals`, which are ordered by time, is read ahead, so that there may be any number of
        them."""
        coming = iter(arrivals)
        open_ = 0

        def expect() -> None:
            nonlocal open_
            arrival = next(coming, None)
            if arrival is not None:
                open_ += 1
                self.clock.at(arrival.at_s, lambda: come(arrival))

        def come(arrival: Arrival) -> None:
            expect()
            self.gateways[arrival.gateway].arrive(arrival)

        expect()
        while open_:
            self.clock.step()
            ended, self._ended[:] = tuple(self._ended), ()
            open_ -= len(ended)
            yield from ended

    def _begin(self) -> None:
        now_s = self.clock.now_s
        for gateway in self.gateways.values():
            for node in described(self._network):
                gateway.state.described(node, now_s)
                gateway.state.came(node.site, now_s)
            for finding in findings(self._network, now_s):
                gateway.state.absorb_finding(finding, now_s)
        for site in self._network.gateways:
            self._measure(site)
        for facility in self._network.facilities:
            self._tell(facility.site, (), now_s)

    def _tell(
        self, site: SiteId, reported: tuple[tuple[int, int], ...], reported_at_s: float
    ) -> None:
        """A facility reports its load if it changed, or if the last report is old."""
        facilities = self._facilities_at(site)
        now_s, load = self.clock.now_s, tuple(facility.load for facility in facilities)
        if site in self._alive and (load != reported or now_s - reported_at_s >= REPORTED_EVERY_S):
            reported, reported_at_s = load, now_s
            serving = Serving(
                site=site,
                at_s=now_s,
                memory_free_bytes=0,
                deployments=tuple(facility.reading() for facility in facilities),
            )
            self._publish(site, lambda g: g.state.absorb_serving(serving, self.clock.now_s))
        self.clock.after(self._looked_every_s, lambda: self._tell(site, reported, reported_at_s))

    def _measure(self, source: SiteId) -> None:
        now_s = self.clock.now_s
        for link in self.links.measured(source, now_s):
            for gateway in self.gateways.values():
                gateway.state.absorb_link(link, now_s)
        self.clock.after(MEASURED_EVERY_S, lambda: self._measure(source))

    def _publish(self, site: SiteId, take: Callable[[SimulatedGateway], None]) -> None:
        """Deliver a site's message to each gateway after its one-way delay."""
        for name, gateway in self.gateways.items():
            way_s = self.links.rtt_s(name, site) / 2
            self.clock.after(way_s, lambda g=gateway: take(g))  # type: ignore[misc]

    def _facilities_at(self, site: SiteId) -> list[SimulatedFacility]:
        here = (spec for at, spec in self._network.deployments if at == site)
        return [self.facilities[deployment_id(spec.name, site)] for spec in here]

    def _set(self, fault: Fault) -> None:
        began, ended = self._turns(fault)
        self.clock.at(fault.at_s, began)
        if fault.until_s < float("inf"):
            self.clock.at(fault.until_s, ended)

    def _turns(self, fault: Fault) -> tuple[Callable[[], None], Callable[[], None]]:
        match fault:
            case Dies(site=site):
                return lambda: self._die(site), lambda: self._live(site)
            case Slows(site=site, times=times):
                return lambda: self._slow(site, times), lambda: self._slow(site, 1.0)
            case LinkSlows(gateway=gateway, site=site, times=times):
                links = self.links
                return (
                    lambda: links.slow(gateway, site, times),
                    lambda: links.slow(gateway, site, 1.0),
                )

    def _slow(self, site: SiteId, times: float) -> None:
        for facility in self._facilities_at(site):
            facility.slow(times)

    def _die(self, site: SiteId) -> None:
        self._alive.discard(site)
        for facility in self._facilities_at(site):
            facility.die()
        self.clock.after(LOST_AFTER_S, lambda: self._lose(site))

    def _lose(self, site: SiteId) -> None:
        if site not in self._alive:
            self._publish(site, lambda g: g.state.lost(site, self.clock.now_s))

    def _live(self, site: SiteId) -> None:
        self._alive.add(site)
        for facility in self._facilities_at(site):
            facility.live()
        self._publish(site, lambda g: g.state.came(site, self.clock.now_s))
