"""A node's part in journeys: a station for all, and a home for its owner's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import Work
from daitn.steering.wire.want import Capability
from daitn.terminal.desk import Done
from daitn.terminal.forwarder.offers import learning_offers
from daitn.terminal.forwarder.role import ForwarderRole
from daitn.terminal.journeys.home import Home
from daitn.terminal.journeys.luggage import Luggage
from daitn.terminal.journeys.station import Station
from daitn.terminal.workshop import Workshop
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.mobility.protocol import ModelTransport

__all__ = ["Terminus"]


class Terminus:
    """See the module."""

    def __init__(
        self,
        site: SiteId,
        state: Path,
        fabric: Fabric,
        role: ForwarderRole,
        transport: ModelTransport,
        workshop: Workshop,
        descriptor: Callable[[], NodeDescriptor],
    ) -> None:
        perform: Callable[[Work], Awaitable[Done]] = workshop.perform
        self._station = Station(
            site, role.post, Luggage(state / "journeys"), workshop.bring, perform, descriptor
        )
        self._home = Home(
            site,
            fabric,
            role.post,
            Luggage(state / "journeys-of-ours"),
            self._station,
            transport,
            workshop.needs,
        )
        role.provide(
            lambda: learning_offers(descriptor()),
            {
                Capability.DATA: self._station,
                Capability.VERIFY: self._station,
                Capability.HOME: self._home,
            },
        )

    def start(self) -> None:
        """Take on what was here."""
        self._home.start()
        self._station.resume()

    async def close(self) -> None:
        await self._home.close()
        await self._station.close()

    def models(self) -> frozenset[Digest]:
        """Weights that journeys need."""
        return self._station.models() | self._home.models()

    def handlers(self) -> dict[str, Handler]:
        """See `Home.handlers`."""
        return self._home.handlers()
