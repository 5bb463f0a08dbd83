"""Links between the sites of a simulated world."""

from __future__ import annotations

from collections.abc import Iterator

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.sim.network import Network
from daitn.topology.qrrt.paths import RELAY_S

__all__ = ["SimulatedLinks"]


class SimulatedLinks:
    """Current round-trip times."""

    def __init__(self, network: Network) -> None:
        self._rtt_s = dict(network.rtt_s)
        self._usual_s = network.rtt_s

    def rtt_s(self, gateway: SiteId, site: SiteId, relay: SiteId | None = None) -> float:
        """Round-trip time, directly or through another gateway."""
        if gateway == site:
            return 0.0
        if relay is None:
            return self._rtt_s[gateway, site]
        return self.rtt_s(gateway, relay) + self.rtt_s(relay, site) + RELAY_S

    def slow(self, gateway: SiteId, site: SiteId, times: float) -> None:
        """From now on, the link takes this many times its usual time."""
        self._rtt_s[gateway, site] = times * self._usual_s[gateway, site]

    def measured(self, source: SiteId, now_s: float) -> Iterator[LinkReading]:
        """A gateway's current measurements of its links."""
        for (gateway, site), rtt_s in self._rtt_s.items():
            if gateway == source:
                reading = Reading(rtt_s, now_s, source)
                yield LinkReading(source=source, target=site, rtt_s=reading)
