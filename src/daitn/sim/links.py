"""The ways between the sites of a simulated world."""

from __future__ import annotations

from collections.abc import Iterator

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading
from daitn.sim.network import Network
from daitn.topology.qrrt.paths import RELAY_S

__all__ = ["SimulatedLinks"]


class SimulatedLinks:
    """Round trips as they are now."""

    def __init__(self, network: Network) -> None:
        self._rtt_s = dict(network.rtt_s)
        self._usual_s = network.rtt_s

    def rtt_s(self, gateway: SiteId, site: SiteId, relay: SiteId | None = None) -> float:
        """Directly, or through another gateway."""
        if gateway == site:
            return 0.0
        if relay is None:
            return self._rtt_s[gateway, site]
        return self.rtt_s(gateway, relay) + self.rtt_s(relay, site) + RELAY_S

    def slow(self, gateway: SiteId, site: SiteId, times: float) -> None:
        """From now on, the way takes so many times what is usual."""
        self._rtt_s[gateway, site] = times * self._usual_s[gateway, site]

    def measured(self, source: SiteId, now_s: float) -> Iterator[LinkReading]:
        """What a gateway measures of its ways now."""
        for (gateway, site), rtt_s in self._rtt_s.items():
            if gateway == source:
                reading = Reading(rtt_s, now_s, source)
                yield LinkReading(source=source, target=site, rtt_s=reading)
