"""A facility: the door, what answers behind it, and what is told of both."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from daitn.learning.consultant import Consultant
from daitn.node.config import NodeConfig
from daitn.node.http import HttpServer
from daitn.node.serving.backends.openai_server import OpenAiBackend
from daitn.node.serving.backends.protocol import Backend
from daitn.node.serving.lifecycle import ModelLifecycle
from daitn.node.serving.server import ServingServer
from daitn.objects.deployments import FacilityDescriptor
from daitn.objects.descriptors import Role
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import DeployModel, RetireModel, Serving
from daitn.objects.wire import decode, encode
from daitn.tools import clock
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
        consultant: Consultant,
        fabric: Fabric,
        store: BlobStore,
        transport: ModelTransport,
        admit: Callable[[str, float], SiteId],
        changed: Callable[[], None],
    ) -> None:
        """`consultant`: it has heard of the recipes that may run here when `start` is called.
        `admit`: see `ServingServer`."""
        assert config.facility is not None
        self._site = config.site
        self._config = config.facility
        self._fabric = fabric
        self._upstreams = {
            upstream.name: OpenAiBackend(upstream, config.owner, changed, config.tls)
            for upstream in config.facility.upstreams
        }
        self._lifecycle = ModelLifecycle(config, consultant, store, transport, changed)
        server = ServingServer(admit, self._names)
        self._server = HttpServer(
            config.facility.listen, "facility.listen", server.handle, config.tls
        )
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the door. Raises `InvalidInput` where it cannot listen."""
        await self._server.start()
        await asyncio.gather(*(upstream.start() for upstream in self._upstreams.values()))
        await self._lifecycle.start()
        self._telling = asyncio.create_task(self._tell_for_ever(), name="serving")

    async def close(self) -> None:
        """Close the door, then end what is behind it."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._server.close()
        await self._lifecycle.close()
        for upstream in self._upstreams.values():
            await upstream.close()

    @property
    def server(self) -> str:
        """Where the site itself reaches it, once it listens."""
        return self._server.endpoint

    def descriptor(self) -> FacilityDescriptor:
        """What is told of the facility now."""
        config = self._config
        return FacilityDescriptor(
            endpoint=config.advertise or self._server.endpoint,
            hosts=config.hosts,
            memory_bytes=config.memory_bytes,
            recipes=self._lifecycle.recipes if config.hosts else (),
            price_usd_per_hour=config.price_usd_per_hour,
            keeps_queries=config.keeps_queries,
            deployments=(
                *(upstream.descriptor for upstream in self._upstreams.values()),
                *self._lifecycle.descriptors(),
            ),
        )

    def models(self) -> frozenset[Digest]:
        """Weights that the site must keep."""
        return self._lifecycle.models()

    async def on_deploy(self, key: str, payload: bytes) -> bytes:
        """`DeployModel` -> nothing: of a facility: fetch a model, load it and answer with it;
        harmless twice."""
        self._lifecycle.deploy(decode(payload, DeployModel))
        return b""

    async def on_retire(self, key: str, payload: bytes) -> bytes:
        """`RetireModel` -> nothing: of a facility: finish what is under way, then forget the
        model."""
        self._lifecycle.retire(decode(payload, RetireModel).name)
        return b""

    def _names(self) -> dict[str, Backend]:
        return {**self._upstreams, **self._lifecycle.names()}

    def _serving(self) -> Serving:
        return Serving(
            site=self._site,
            at_s=clock.now_s(),
            memory_free_bytes=self._lifecycle.memory_free_bytes,
            deployments=tuple(
                served.admission.reading(name) for name, served in self._names().items()
            ),
        )

    async def _tell_for_ever(self) -> None:
        """Tell how the deployments do, at once where their load or what is free changed."""
        told: tuple[object, ...] = ()
        told_at_s = 0.0
        while True:
            state = (
                self._lifecycle.memory_free_bytes,
                *(
                    (name, served.admission.in_flight + served.admission.waiting)
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
