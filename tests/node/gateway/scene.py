"""Gateways over a topology of real servers, in the test's event loop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import openai

from daitn.identity.keys import SigningKey
from daitn.identity.passes import PassBook
from daitn.node.config import GatewayConfig
from daitn.node.gateway import Gateway
from daitn.node.gateway.packet_queries import Packets
from daitn.node.usage.counts import UsageCounts
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    GatewayDescriptor,
    Runtime,
)
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.findings import Finding
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.qrrt.state import QrrtState
from tests.scenes.plain_http import plain_http
from tests.tools.http.test_server import connections

__all__ = [
    "DEADLINE_S",
    "DIGEST",
    "Network",
    "Seen",
    "client",
    "deadlines_pass",
    "deployment",
    "stuck",
]

DIGEST = Digest("ab" * 32)
ALL_APIS = tuple(Api)
DEADLINE_S = 600.0
"""Does not pass by itself, however slow a machine is; see `deadlines_pass`."""
Seen = tuple[str, str, Observation]


def deployment(name: str, **said: Any) -> DeploymentDescriptor:
    return DeploymentDescriptor(
        **{
            "name": name,
            "owner": OwnerId("university"),
            "runtime": Runtime.OPENAI,
            "apis": ALL_APIS,
            "state": DeploymentState.READY,
            "slots": 100,
            **said,
        }
    )


class View:
    """The network's topology as one gateway sees it; remembers what the gateway told it."""

    def __init__(self, state: QrrtState, origin: SiteId) -> None:
        self.state = state
        self.origin = origin
        self.seen: list[Seen] = []
        self.broken: frozenset[SiteId] = frozenset()
        self.gateway: Gateway | None = None

    def snapshot(self) -> Qrrt:
        return self.state.snapshot()

    def paths(self, snapshot: Qrrt) -> Paths:
        return paths_from(snapshot, self.origin, time.time(), self.broken)

    def observe(self, site: SiteId, name: str, seen: Observation) -> None:
        self.seen.append((site, name, seen))
        self.state.observe(site, name, seen, time.time())

    def unreachable(self, site: SiteId) -> None:
        self.broken |= {site}


@dataclass
class Network:
    """Facilities are servers of other processes; gateways run here."""

    state: QrrtState = field(default_factory=QrrtState)
    keys: dict[SiteId, SigningKey] = field(default_factory=dict)
    gateways: list[Gateway] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    version: int = 0

    def facility(
        self, site: str, base_url: str, *models: DeploymentDescriptor, keeps: bool = False
    ) -> None:
        """`base_url` as of `OpenAiServer.url`; `keeps`: queries, and responses."""
        facility = FacilityDescriptor(
            endpoint=base_url.removesuffix("/v1"),
            hosts=False,
            memory_bytes=0,
            deployments=models,
            keeps_queries=keeps,
            keeps_responses=keeps,
        )
        self._describe(site, Role.FACILITY, facility=facility)

    def measured(self, name: str, site: str, topic: str, value: float) -> None:
        """A verification unit found this by asking."""
        finding = Finding(
            verifier=SiteId("mpvu"),
            site=SiteId(site),
            deployment=name,
            manifest=self._manifest(name, site),
            topic=topic,
            metric="accuracy",
            value=value,
            standard_error=0.01,
            items=1000,
            at_s=time.time(),
        )
        self.state.absorb_finding(finding, time.time())

    async def gateway(
        self,
        site: str = "gw",
        *,
        topic: tuple[str, float] = ("", 0.0),
        packets: Packets | None = None,
        counts: UsageCounts | None = None,
        **config: Any,
    ) -> Gateway:
        """A started gateway."""
        name = SiteId(site)
        view = self.views[site] = View(self.state, name)
        key = self.keys.setdefault(name, SigningKey.generate())
        gateway = Gateway(
            name,
            GatewayConfig(**{"listen": "127.0.0.1:0", **config}),
            view,
            key,
            PassBook(name, self._key_of).holder,
            lambda text: topic,
            packets,
            counts=counts,
        )
        await gateway.start()
        view.gateway = gateway
        self.gateways.append(gateway)
        self.describe_gateway(gateway)
        return gateway

    def describe_gateway(self, gateway: Gateway) -> None:
        """Tell the topology of a gateway."""
        site = next(site for site, view in self.views.items() if view.gateway is gateway)
        self._describe(site, Role.GATEWAY, gateway=gateway.descriptor())

    async def close(self) -> None:
        await asyncio.gather(*(gateway.close() for gateway in self.gateways))

    def seen(self, site: str = "gw") -> list[Seen]:
        """What the gateway at `site` told the topology."""
        return self.views[site].seen

    def _key_of(self, site: SiteId) -> str | None:
        key = self.keys.get(site)
        return None if key is None else key.public

    def _manifest(self, name: str, site: str) -> Digest | None:
        snapshot = self.state.snapshot()
        return snapshot.rows[snapshot.row_of[f"{name}@{site}"]].descriptor.manifest

    def _describe(
        self,
        site: str,
        role: Role,
        *,
        facility: FacilityDescriptor | None = None,
        gateway: GatewayDescriptor | None = None,
    ) -> None:
        self.version += 1
        node = NodeDescriptor(
            site=SiteId(site),
            owner=OwnerId(f"provider-of-{site}"),
            roles=(role,),
            jurisdiction="US",
            public_key="",
            started_at_s=1.0,
            version=self.version,
            software="daitn",
            facility=facility,
            gateway=gateway,
        )
        self.state.described(node, time.time())
        self.state.came(SiteId(site), time.time())


def deadlines_pass(gateway: Gateway) -> None:
    """Those of the queries in progress, of `DEADLINE_S` each, pass now."""
    assert gateway._timers
    now_s = asyncio.get_running_loop().time()
    for timer in gateway._timers:
        at_s = timer.when()
        assert at_s is not None
        assert now_s < at_s <= now_s + DEADLINE_S
        timer.reschedule(now_s)


def stuck(gateway: Gateway) -> bool:
    """Whether a client of it does not take what it is sent."""
    return any(connection.flow.write_paused for connection in connections(gateway._api._server))


def client(gateway: Gateway, key: str = "none") -> openai.AsyncOpenAI:
    """OpenAI's own client; it does not retry, so that tests see what the gateway does."""
    return openai.AsyncOpenAI(
        base_url=f"{gateway.descriptor().endpoint}/v1",
        api_key=key,
        max_retries=0,
        http_client=plain_http(),
    )
