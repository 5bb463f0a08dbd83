"""The centralised query route engine: one site knows all and decides with the live QIRCE.

Its knowledge arrives over the network: load reports of facilities, and links that failed or came
back, as the link-state protocol reports them at its site. It either answers every query's request
(`asked`: a round trip, and it knows its decisions at once), or publishes what it knows to all
sources, which decide with the same code and know their own queries at once (`pushed`). Queries
follow a shortest path from their source, as the centre knows the links. If a link on the path is
known to be down, the site before it returns the query, and the source decides again without that
link; so does a source that learns that the path of a query in flight is broken.
"""

from __future__ import annotations

import bisect
import itertools
import random

import msgspec
import numpy as np

from daitn.control.queries.context import QueryContext, QueryRefusal
from daitn.control.queries.engine import Qirce
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Serving
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Trust
from daitn.objects.readings import ServingReading
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network, described, findings
from daitn.sim.steered.graph import Link
from daitn.sim.steered.plain import LOCAL, Flight, PlainNetwork
from daitn.sim.steered.scenario import MIN_FIT, Scenario
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.qrrt.state import QrrtState

__all__ = ["Centralised"]

MODEL = "doctor"
QUEUE = 100_000
QUERY_BYTES, PLAN_BYTES = 120, 100
"""Sizes of a request to the centre and its reply: a header and an intent, or a path."""


class Centralised:
    """A `Router` of `plain`."""

    def __init__(
        self, network: PlainNetwork, *, asked: bool, reported_every_s: float = 1.0
    ) -> None:
        self.network, self._asked, self._reported_every_s = network, asked, reported_every_s
        self._qirce = Qirce()
        self._state = _state_of(network.scenario)
        self._known: list[tuple[float, Qrrt, frozenset[Link]]] = []
        """The centre's knowledge, and since when."""
        deciders = [network.scenario.centre] if asked else network.graph.sites
        self._loads = {site: GatewayLoad() for site in deciders}
        self._gone: dict[Flight, str] = {}
        """Attempts in flight, to their deployment."""
        self._broken: dict[tuple[int, int], frozenset[Link]] = {}
        """Links at which an attempt was returned."""
        far_s = network.graph.next_hops(frozenset(), frozenset((network.scenario.centre,)))
        self._far_s = {site: hop[0] for site, hop in far_s.items()}
        self._hops = {
            site: len(network.graph.path(frozenset(), site, network.scenario.centre)) - 1
            for site in network.graph.sites
        }
        for site in network.servers:
            self._report(site)

    # Knowledge of the centre

    def _report(self, site: str) -> None:
        """A facility reports its load; the centre receives it over the shortest path, if any."""
        network = self.network
        server, facility = network.servers[site], network.scenario.facilities[site]
        serving = Serving(
            site=SiteId(site),
            at_s=network.now_s,
            memory_free_bytes=0,
            deployments=(
                ServingReading(
                    deployment=MODEL,
                    in_flight=len(server.serving),
                    waiting=len(server.waiting),
                    first_token_s=facility.serve_s,
                    per_token_s=0.0,
                ),
            ),
        )
        pushed = 0 if self._asked else len(network.graph.sites) - 1
        network.control(self._hops[site] + pushed, len(msgspec.msgpack.encode(serving)))
        to_centre = network.graph.next_hops(network.down, frozenset((network.scenario.centre,)))
        if site in to_centre:
            network.clock.after(to_centre[site][0], lambda: self._hear(serving))
        network.clock.after(self._reported_every_s, lambda: self._report(site))

    def _hear(self, serving: Serving) -> None:
        self._state.absorb_serving(serving, self.network.now_s)
        self._know()

    def _know(self) -> tuple[float, Qrrt, frozenset[Link]]:
        """The centre's current knowledge."""
        network = self.network
        view, snapshot = network.views[network.scenario.centre], self._state.snapshot()
        if not self._known or self._known[-1][1:] != (snapshot, view):
            self._known.append((network.now_s, snapshot, view))
        return self._known[-1]

    def _known_at(self, site: str) -> tuple[float, Qrrt, frozenset[Link]]:
        """The part of it that has reached a site."""
        newest = self._know()
        since_s = self.network.now_s - self._far_s[site]
        at = bisect.bisect_right(self._known, since_s, key=lambda known: known[0])
        return newest if self._asked else self._known[max(0, at - 1)]

    # Deciding

    def begins(self, flight: Flight) -> float:
        network, source = self.network, flight.query.source
        if not self._asked:
            self._decide(flight, source)
            return 0.0
        way_s, hops = self._far_s[source], self._hops[source]
        network.control(hops, QUERY_BYTES)
        network.control(2 * hops, PLAN_BYTES)  # The reply, and later the notice of completion.
        network.clock.after(way_s, lambda: self._decide(flight, network.scenario.centre))
        return 2.0 * way_s

    def _decide(self, flight: Flight, decider: str) -> None:
        graph, query = self.network.graph, flight.query
        _, snapshot, down = self._known_at(decider)
        down |= self._broken.get((query.number, flight.attempt), frozenset())
        rtt_s = [
            2.0 * graph.next_hops(down, frozenset((row.site,))).get(query.source, (np.inf, ""))[0]
            for row in snapshot.rows
        ]
        context = QueryContext(
            intent=_intent(self.network.scenario, flight),
            snapshot=snapshot,
            paths=_paths(rtt_s),
            in_flight=self._loads[decider].of(snapshot),
            now_s=self.network.now_s,
            excluded=tuple(at for at, seconds in enumerate(rtt_s) if seconds == np.inf),
        )
        rng = random.Random(f"{query.number}:{flight.attempt}")  # noqa: S311 - replayable
        plan = self._qirce.decide(context, rng)
        if isinstance(plan, QueryRefusal):
            return
        row = snapshot.rows[plan.rows[0]]
        flight.target, flight.plan = row.site, graph.path(down, query.source, row.site)
        self._gone[flight] = row.id
        self._loads[decider].begin(row.id)

    def onwards(self, flight: Flight) -> tuple[str, ...]:
        here, plan = flight.here, flight.plan
        if not plan:
            return ()
        if here == flight.target:
            return (LOCAL,)
        neighbour = plan[plan.index(here) + 1]
        if frozenset((here, neighbour)) not in self.network.views[here]:
            return (neighbour,)
        self._give_back(flight, frozenset((here, neighbour)))
        return ()

    def _give_back(self, flight: Flight, link: Link) -> None:
        """The site before a link that is down informs the source."""
        network, query = self.network, flight.query
        hops = network.graph.next_hops(network.views[flight.here], frozenset((query.source,)))
        if flight.here not in hops or flight not in self._gone:
            return
        key = query.number, flight.attempt
        self._broken[key] = self._broken.get(key, frozenset()) | {link}
        network.control(flight.hops, PLAN_BYTES)
        network.clock.after(hops[flight.here][0], lambda: self._again(flight))

    def _again(self, flight: Flight) -> None:
        """Its source decides again, replacing this attempt."""
        if flight not in self._gone:
            return
        self.ended(flight)
        fresh = Flight(flight.query, flight.attempt, flight.query.source)
        after_s = self.begins(fresh)
        self.network.clock.after(after_s, lambda: self.network.go_on(fresh))

    def learned(self, site: str) -> None:
        """A source does not wait for an attempt whose path it learns is broken."""
        down = self.network.views[site]
        for flight in [flight for flight in self._gone if flight.query.source == site]:
            if any(frozenset(pair) in down for pair in itertools.pairwise(flight.plan)):
                self._again(flight)

    def ended(self, flight: Flight) -> None:
        id_ = self._gone.pop(flight, None)
        if id_ is None:
            return
        source = flight.query.source
        if self._asked:
            load = self._loads[self.network.scenario.centre]
            self.network.clock.after(self._far_s[source], lambda: load.end(id_))
        else:
            self._loads[source].end(id_)

    def lost(self, flight: Flight) -> None:
        """Its source does not learn of the loss, and counts the attempt until it would time out."""
        if flight in self._gone:
            self.network.clock.after(2.0, lambda: self.ended(flight))


def _state_of(scenario: Scenario) -> QrrtState:
    """Knowledge that everybody has from the beginning."""
    facilities = tuple(
        FacilitySpec(
            site=SiteId(site),
            deployments=(
                DeploymentSpec(
                    name=MODEL,
                    slots=f.slots,
                    queue=QUEUE,
                    first_token_s=f.serve_s,
                    per_token_s=0.0,
                    usd_per_1k_in=0.0,
                    usd_per_1k_out=0.0,
                    accuracy=f.fits,
                ),
            ),
        )
        for site, f in scenario.facilities.items()
    )
    network = Network(facilities, (), {})
    state = QrrtState()
    for node in described(network):
        state.described(node, 0.0)
        state.came(node.site, 0.0)
    for finding in findings(network, 0.0):
        state.absorb_finding(finding, 0.0)
    return state


def _intent(scenario: Scenario, flight: Flight) -> QueryIntent:
    query = flight.query
    return QueryIntent(
        origin=SiteId(query.source),
        owner="",
        api=Api.CHAT,
        model=AUTO,
        topic=query.topic,
        tokens_in=0,
        tokens_out=1,
        constraints=QueryConstraints(
            min_accuracy=MIN_FIT, trust=Trust.ASKED, prefer=_known_to_qirce(scenario)
        ),
    )


def _known_to_qirce(scenario: Scenario) -> dict[str, float]:
    return {**scenario.prefer, "affinity": 0.0} if scenario.prefer else {}


def _paths(rtt_s: list[float]) -> Paths:
    seconds = np.array(rtt_s, np.float64)
    return Paths(
        rtt_s=seconds,
        direct_rtt_s=seconds,
        relay=np.full(len(rtt_s), -1, np.intp),
        relays=(),
        measured=np.ones(len(rtt_s), np.bool_),
    )
