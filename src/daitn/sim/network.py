"""Facilities with their deployments, gateways, and links of a simulated world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.topology.qrrt.accuracy import METRIC

__all__ = ["DeploymentSpec", "FacilitySpec", "Network", "described", "findings"]

_OWNER = OwnerId("provider")
_VERIFIER = SiteId("verifier")
_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """A model at one facility, as it really is."""

    name: str
    slots: int
    queue: int
    first_token_s: float
    per_token_s: float
    usd_per_1k_in: float
    usd_per_1k_out: float
    accuracy: Mapping[str, float]
    """Topic to accuracy."""

    def service_s(self, tokens: int) -> float:
        """Usual duration of an answer with this many tokens, from slot to end."""
        return self.first_token_s + self.per_token_s * (tokens - 1)

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        return (self.usd_per_1k_in * tokens_in + self.usd_per_1k_out * tokens_out) / 1000


@dataclass(frozen=True, slots=True)
class FacilitySpec:
    """One facility. Its deployments have different names."""

    site: SiteId
    deployments: tuple[DeploymentSpec, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """The constant part. Every gateway reaches every facility and every other gateway."""

    facilities: tuple[FacilitySpec, ...]
    gateways: tuple[SiteId, ...]
    rtt_s: Mapping[tuple[SiteId, SiteId], float]
    """By gateway and other site."""

    @property
    def deployments(self) -> Iterator[tuple[SiteId, DeploymentSpec]]:
        return ((f.site, spec) for f in self.facilities for spec in f.deployments)


def described(network: Network) -> Iterator[NodeDescriptor]:
    """Descriptors of all nodes."""
    for facility in network.facilities:
        yield _node(
            facility.site,
            Role.FACILITY,
            facility=FacilityDescriptor(
                endpoint=f"http://{facility.site}",
                hosts=False,
                memory_bytes=0,
                deployments=tuple(_deployment(spec) for spec in facility.deployments),
            ),
        )
    for gateway in network.gateways:
        endpoint = GatewayDescriptor(endpoint=f"http://{gateway}")
        yield _node(gateway, Role.GATEWAY, gateway=endpoint)


def findings(network: Network, at_s: float) -> Iterator[Finding]:
    """A verification unit's findings on all deployments."""
    for site, spec in network.deployments:
        for topic, value in spec.accuracy.items():
            yield Finding(
                verifier=_VERIFIER,
                site=site,
                deployment=spec.name,
                manifest=None,
                topic=topic,
                metric=METRIC,
                value=value,
                standard_error=(value * (1 - value) / _ITEMS) ** 0.5,
                items=_ITEMS,
                at_s=at_s,
            )


def _node(
    site: SiteId,
    role: Role,
    facility: FacilityDescriptor | None = None,
    gateway: GatewayDescriptor | None = None,
) -> NodeDescriptor:
    return NodeDescriptor(
        site=site,
        owner=_OWNER,
        roles=(role,),
        jurisdiction="US",
        public_key="",
        started_at_s=0.0,
        version=1,
        software="",
        facility=facility,
        gateway=gateway,
    )


def _deployment(spec: DeploymentSpec) -> DeploymentDescriptor:
    return DeploymentDescriptor(
        name=spec.name,
        owner=_OWNER,
        runtime=Runtime.OPENAI,
        apis=(Api.CHAT,),
        state=DeploymentState.READY,
        slots=spec.slots,
        queue=spec.queue,
        price_usd_per_1k_in=spec.usd_per_1k_in,
        price_usd_per_1k_out=spec.usd_per_1k_out,
    )
