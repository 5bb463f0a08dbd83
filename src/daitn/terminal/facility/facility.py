"""A facility: the door, what answers behind it, and what is told of both."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from daitn.objects.deployments import FacilityDescriptor
from daitn.objects.descriptors import Role
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import DeployModel, RetireModel, Serving
from daitn.objects.wire import decode, encode
from daitn.terminal.config import NodeConfig
from daitn.terminal.facility.door import Door
from daitn.terminal.facility.hosting import Hosting
from daitn.terminal.facility.served import Served
from daitn.terminal.facility.upstream import UpstreamModel
from daitn.terminal.http import HttpServer
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.mobility.protocol import BlobStore, ModelTransport

__all__ = ["ADMITTED_ROLES", "Facility"]

log = logging.getLogger(__name__)

ADMITTED_ROLES = (Role.GATEWAY, Role.VERIFIER, Role.FORWARDER)
"""Whose passes open the door."""
TOLD_EVERY_S = 1.0
LOOKED_EVERY_S = 0.1
"""A change of load or of free memory is told within this time."""


class Facility:
    """The role `facility` of a node. `changed` is told when the descriptor is another one."""

    def __init__(
        self,
        config: NodeConfig,
        recipes: tuple[str, ...],
        fabric: Fabric,
        store: BlobStore,
        transport: ModelTransport,
        admit: Callable[[str, float], SiteId],
        changed: Callable[[], None],
    ) -> None:
        """`recipes`: those that may run at this site. `admit`: see `Door`."""
        assert config.facility is not None
        self._site = config.site
        self._config = config.facility
        self._fabric = fabric
        self._upstreams = {
            upstream.name: UpstreamModel(upstream, config.owner, changed, config.tls)
            for upstream in config.facility.upstreams
        }
        self._hosting = Hosting(config, recipes, store, transport, changed)
        door = Door(admit, self._names)
        self._server = HttpServer(
            config.facility.listen, "facility.listen", door.handle, config.tls
        )
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the door. Raises `InvalidInput` where it cannot listen."""
        await self._server.start()
        await asyncio.gather(*(upstream.start() for upstream in self._upstreams.values()))
        await self._hosting.start()
        self._telling = asyncio.create_task(self._tell_for_ever(), name="serving")

    async def close(self) -> None:
        """Close the door, then end what is behind it."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._server.close()
        await self._hosting.close()
        for upstream in self._upstreams.values():
            await upstream.close()

    @property
    def door(self) -> str:
        """Where the site itself reaches it, once it listens."""
        return self._server.endpoint

    def descriptor(self) -> FacilityDescriptor:
        """What is told of the facility now."""
        config = self._config
        return FacilityDescriptor(
            endpoint=config.advertise or self._server.endpoint,
            hosts=config.hosts,
            memory_bytes=config.memory_bytes,
            recipes=self._hosting.recipes if config.hosts else (),
            price_usd_per_hour=config.price_usd_per_hour,
            keeps_queries=config.keeps_queries,
            deployments=(
                *(upstream.descriptor for upstream in self._upstreams.values()),
                *self._hosting.descriptors(),
            ),
        )

    def models(self) -> frozenset[Digest]:
        """Weights that the site must keep."""
        return self._hosting.models()

    async def on_deploy(self, key: str, payload: bytes) -> bytes:
        """The site's verb `deploy`."""
        self._hosting.deploy(decode(payload, DeployModel))
        return b""

    async def on_retire(self, key: str, payload: bytes) -> bytes:
        """The site's verb `retire`."""
        self._hosting.retire(decode(payload, RetireModel).name)
        return b""

    def _names(self) -> dict[str, Served]:
        return {**self._upstreams, **self._hosting.names()}

    def _serving(self) -> Serving:
        return Serving(
            site=self._site,
            at_s=time.time(),
            memory_free_bytes=self._hosting.memory_free_bytes,
            deployments=tuple(served.meter.reading(name) for name, served in self._names().items()),
        )

    async def _tell_for_ever(self) -> None:
        """Tell how the deployments do, at once where their load or what is free changed."""
        told: tuple[object, ...] = ()
        told_at_s = 0.0
        while True:
            state = (
                self._hosting.memory_free_bytes,
                *(
                    (name, served.meter.in_flight + served.meter.waiting)
                    for name, served in self._names().items()
                ),
            )
            now_s = time.monotonic()
            if state != told or now_s - told_at_s >= TOLD_EVERY_S:
                told, told_at_s = state, now_s
                try:
                    serving = encode(self._serving())
                    await self._fabric.publish(keys.site_serving(self._site), serving)
                except DaitnError as error:
                    log.debug("how it goes is not heard: %s", error)
            await asyncio.sleep(LOOKED_EVERY_S)
