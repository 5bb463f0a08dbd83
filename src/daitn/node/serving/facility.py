"""A facility: its API server, its deployments, and what it publishes about them."""

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
from daitn.tools.mobility.releases import Release

__all__ = ["ADMITTED_ROLES", "Facility"]

log = logging.getLogger(__name__)

ADMITTED_ROLES = (Role.GATEWAY, Role.VERIFIER, Role.FORWARDER)
"""Roles whose passes the API server accepts."""
REPORT_INTERVAL_S = 1.0
POLL_INTERVAL_S = 0.1
"""Changes of load or free memory are published within this time."""


class Facility:
    """The role `facility` of a node. It calls `changed` when its descriptor changes."""

    def __init__(
        self,
        config: NodeConfig,
        consultant: Consultant,
        fabric: Fabric,
        store: BlobStore,
        transport: ModelTransport,
        admit: Callable[[str, float], SiteId],
        changed: Callable[[], None],
        released: Release | None = None,
    ) -> None:
        """`consultant` knows the recipes that may run here by the time `start` is called. `admit`:
        see `ServingServer`."""
        assert config.facility is not None
        self._site = config.site
        self._config = config.facility
        self._fabric = fabric
        self._upstreams = {
            upstream.name: OpenAiBackend(upstream, config.owner, changed, config.tls)
            for upstream in config.facility.upstreams
        }
        self._lifecycle = ModelLifecycle(config, consultant, store, transport, changed, released)
        server = ServingServer(admit, self._backends)
        self._server = HttpServer(
            config.facility.listen, "facility.listen", server.handle, config.tls
        )
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start serving. Raises `InvalidInput` for an address that it cannot use."""
        await self._server.start()
        await asyncio.gather(*(upstream.start() for upstream in self._upstreams.values()))
        await self._lifecycle.start()
        self._reporting = asyncio.create_task(self._report_forever(), name="serving")

    async def close(self) -> None:
        """Stop serving, then stop the backends."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        await self._server.close()
        await self._lifecycle.close()
        for upstream in self._upstreams.values():
            await upstream.close()

    @property
    def server(self) -> str:
        """The server's address within the site, once it listens."""
        return self._server.endpoint

    def descriptor(self) -> FacilityDescriptor:
        """The facility's descriptor now."""
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
        """Manifests of weights that the site must keep."""
        return self._lifecycle.models()

    async def on_deploy(self, key: str, payload: bytes) -> bytes:
        """`DeployModel` -> nothing: of a facility: fetch a model, load it and answer with it;
        harmless twice."""
        self._lifecycle.deploy(decode(payload, DeployModel))
        return b""

    async def on_retire(self, key: str, payload: bytes) -> bytes:
        """`RetireModel` -> nothing: of a facility: finish the queries under way, then remove the
        model."""
        self._lifecycle.retire(decode(payload, RetireModel).name)
        return b""

    def _backends(self) -> dict[str, Backend]:
        return {**self._upstreams, **self._lifecycle.backends()}

    def _reading(self) -> Serving:
        return Serving(
            site=self._site,
            at_s=clock.now_s(),
            memory_free_bytes=self._lifecycle.memory_free_bytes,
            deployments=tuple(
                backend.admission.reading(name) for name, backend in self._backends().items()
            ),
        )

    async def _report_forever(self) -> None:
        """Publish the load of all deployments, at once when it or the free memory changes."""
        reported: tuple[object, ...] = ()
        reported_at_s = 0.0
        while True:
            state = (
                self._lifecycle.memory_free_bytes,
                *(
                    (name, backend.admission.in_flight + backend.admission.waiting)
                    for name, backend in self._backends().items()
                ),
            )
            now_s = time.monotonic()
            if state != reported or now_s - reported_at_s >= REPORT_INTERVAL_S:
                reported, reported_at_s = state, now_s
                try:
                    serving = encode(self._reading())
                    await self._fabric.publish(keys.site_serving(self._site), serving)
                except DaitnError as error:
                    log.debug("cannot publish the serving load: %s", error)
            await asyncio.sleep(POLL_INTERVAL_S)
