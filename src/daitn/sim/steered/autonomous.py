"""The same scenario on a network of live AATS forwarders, with or without a centre's advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from daitn.objects.intents import Preference
from daitn.sim.forwarders import ForwarderNetwork, Returned
from daitn.sim.steered.measures import Run, SteeredOutcome
from daitn.sim.steered.plain import DETECT_S
from daitn.sim.steered.scenario import MIN_FIT, Outage, Scenario, SteeredQuery
from daitn.steering.scoring import STEERING
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Packet, PacketKind

__all__ = ["AutonomousRouting", "latency_weight"]

ADVISED_EVERY_S = 5.0
REPORT_BYTES = ADVICE_BYTES = 60
_QUERY_ID = 16
_CONTROL: Final = ("summaries", PacketKind.REFUSAL.name)


class AutonomousRouting:
    """Runs one scenario.

    `advised`: whether a centre advises weights (non-standalone AATS); `coded`: whether packets are
    encoded in transit, as in `ForwarderNetwork`.
    """

    def __init__(self, scenario: Scenario, *, advised: bool = False, coded: bool = False) -> None:
        self.scenario, self._advised = scenario, advised
        self.network = ForwarderNetwork(detect_s=DETECT_S, coded=coded)
        self.returns: Counter[int] = Counter()
        """How often each query's owner received a reply."""
        self._outcomes: dict[int, SteeredOutcome] = {}
        self._hops: dict[int, int] = {}
        self._wants = {topic: _packet_intent(topic, scenario) for topic in _topics(scenario)}
        self.network.on_return = self._returned
        self.network.on_deliver = self._delivered
        for site in scenario.graph.sites:
            self._add(site)
        for link, delay_s in scenario.graph.links.items():
            a, b = sorted(link)
            self.network.connect(a, b, delay_s)

    def run(self) -> Run:
        """Run the whole scenario."""
        scenario, network, times = self.scenario, self.network, self.scenario.times
        for query in scenario.queries:
            network.clock.at(query.at_s, lambda q=query: self._set_out(q))  # type: ignore[misc]
        for failure in scenario.failures:
            network.clock.at(failure.at_s, lambda f=failure: self._fail(f))  # type: ignore[misc]
        if self._advised:
            network.clock.after(times.rest_s, self._advise)
        network.run(times.warm_s)
        network.counts.clear()
        network.run(times.until_s - times.warm_s)
        counts = Counter(network.counts)
        network.run(times.drain_s)
        counts["control messages"] += sum(counts[name] for name in _CONTROL)
        counts["control bytes"] += counts["summary bytes"] + counts["refusal bytes"]
        return Run(self._outcomes, counts)

    def _add(self, site: str) -> None:
        facility = self.scenario.facilities.get(site)
        if facility is None:
            self.network.add(site)
            return
        offers = tuple(
            Offer(
                key=f"{Capability.ANSWER}:{topic}",
                fit=fit,
                trust=2,
                serve_s=facility.serve_s,
                amount=facility.slots,
            )
            for topic, fit in facility.fits.items()
            if facility.capable(topic)
        )
        queries, serve_s = self.scenario.queries, facility.serve_s
        self.network.add(
            site,
            offers,
            slots=facility.slots,
            serve_s=lambda packet: serve_s * queries[_number(packet)].luck,
        )

    def _set_out(self, query: SteeredQuery) -> None:
        number = query.number.to_bytes(_QUERY_ID, "big")
        self.network.send(query.source, Packet(PacketKind.QUERY, number, self._wants[query.topic]))

    def _delivered(self, site: str, packet: Packet) -> None:
        self.network.counts["served"] += 1
        self._hops[_number(packet)] = len(packet.hops()) - 1

    def _returned(self, returned: Returned) -> None:
        number = _number(returned.packet)
        self.returns[number] += 1
        if returned.packet.kind is PacketKind.ANSWER:
            by, query = returned.packet.payload.decode(), self.scenario.queries[number]
            fit = self.scenario.facilities[by].fits[query.topic]
            taken_s = returned.at_s - query.at_s
            self._outcomes[number] = SteeredOutcome(by, taken_s, fit, self._hops[number])

    def _fail(self, failure: Outage) -> None:
        for link in failure.links:
            self.network.disconnect(*sorted(link))
        if failure.site:
            self.network.crash(failure.site)
        self.network.clock.at(failure.until_s, lambda: self._mend(failure))

    def _mend(self, failure: Outage) -> None:
        for link in failure.links:
            a, b = sorted(link)
            self.network.connect(a, b, self.scenario.graph.links[link])

    # Advice

    def _advise(self) -> None:
        """The centre receives the facilities' load and advises weights to all forwarders."""
        network, graph, centre = self.network, self.scenario.graph, self.scenario.centre
        next_hops = graph.next_hops(frozenset(), frozenset((centre,)))
        busy = slots = 0
        for site, facility in self.scenario.facilities.items():
            simulated = network.sites[site]
            busy += simulated.busy + len(simulated.waiting)
            slots += facility.slots
            hops = len(graph.path(frozenset(), site, centre)) - 1
            network.counts["control messages"] += hops
            network.counts["control bytes"] += hops * REPORT_BYTES
        advice = (Preference(scorer="latency", weight=latency_weight(busy / slots)),)
        farthest_s = max(next_hops[site][0] for site in self.scenario.facilities)
        for site in graph.sites:
            network.clock.after(farthest_s + next_hops[site][0], self._telling(site, advice))
            network.counts["control messages"] += 1
            network.counts["control bytes"] += ADVICE_BYTES
        network.clock.after(ADVISED_EVERY_S, self._advise)

    def _telling(self, site: str, advice: tuple[Preference, ...]) -> Callable[[], None]:
        def tell() -> None:
            self.network.sites[site].forwarder.custody.rankings.advise(advice)

        return tell


def latency_weight(busy: float) -> float:
    """Weight of time at this load per slot: the busier, the more a detour pays."""
    return STEERING.weights["latency"] * (1.0 + 4.0 * min(1.5, busy))


def _topics(scenario: Scenario) -> set[str]:
    return {query.topic for query in scenario.queries}


def _packet_intent(topic: str, scenario: Scenario) -> bytes:
    intent = PacketIntent(
        Capability.ANSWER, topic, min_fit=MIN_FIT, trust=2, prefer=dict(scenario.prefer)
    )
    return encode_intent(intent)


def _number(packet: Packet) -> int:
    return int.from_bytes(packet.object_id, "big")
