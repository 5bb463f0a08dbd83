"""Facilities, gateways and verification units, as descriptors, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    GatewayDescriptor,
    Runtime,
)
from daitn.objects.descriptors import NodeDescriptor, Role, VerifierDescriptor
from daitn.objects.findings import Finding
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId, VisitId
from daitn.objects.lineage import Entry, Verification
from daitn.objects.messages import Serving
from daitn.objects.readings import LinkReading, Reading, ServingReading
from daitn.topology.qrrt.state import QrrtState

NOW_S = 1_000_000.0
WEIGHTS, OTHER_WEIGHTS = Digest("ab" * 32), Digest("cd" * 32)
KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()
"""Of the verification unit `board`, and of somebody else."""


def deployment(name: str, **said: Any) -> DeploymentDescriptor:
    fields: dict[str, Any] = {
        "name": name,
        "owner": OwnerId("university"),
        "runtime": Runtime.OPENAI,
        "apis": (Api.CHAT,),
        "state": DeploymentState.READY,
        "manifest": WEIGHTS,
        "slots": 4,
        "price_usd_per_1k_out": 0.01,
    }
    return DeploymentDescriptor(**{**fields, **said})


def facility(site: str, *deployments: DeploymentDescriptor, **said: Any) -> NodeDescriptor:
    """`keeps_queries` is the facility's, all else the node's."""
    of_facility = FacilityDescriptor(
        endpoint=f"http://{site}",
        hosts=True,
        memory_bytes=1_000_000_000,
        keeps_queries=said.pop("keeps_queries", False),
        deployments=deployments,
    )
    return node(site, Role.FACILITY, facility=of_facility, **said)


def gateway(site: str, **said: Any) -> NodeDescriptor:
    return node(site, Role.GATEWAY, gateway=GatewayDescriptor(endpoint=f"http://{site}"), **said)


def unit(site: str = "board", key: SigningKey = KEY, **said: Any) -> NodeDescriptor:
    verifier = VerifierDescriptor(tests=(), recipes=())
    return node(site, Role.VERIFIER, verifier=verifier, public_key=key.public, **said)


def node(site: str, *roles: Role, **said: Any) -> NodeDescriptor:
    fields: dict[str, Any] = {
        "site": SiteId(site),
        "owner": OwnerId("nih"),
        "roles": roles,
        "jurisdiction": "US",
        "public_key": "",
        "started_at_s": 1.0,
        "version": 1,
        "software": "daitn",
    }
    return NodeDescriptor(**{**fields, **said})


def finding(name: str, site: str, topic: str, value: float, **said: Any) -> Finding:
    fields: dict[str, Any] = {
        "verifier": SiteId("board"),
        "site": SiteId(site),
        "deployment": name,
        "manifest": WEIGHTS,
        "topic": topic,
        "metric": "accuracy",
        "value": value,
        "standard_error": 0.02,
        "items": 400,
        "at_s": NOW_S - 60,
    }
    return Finding(**{**fields, **said})


def evidence(topic: str, value: float, key: SigningKey = KEY, **said: Any) -> Entry:
    """A verification of weights, signed by `board` unless `site` says otherwise."""
    fields: dict[str, Any] = {
        "job": JobId("j"),
        "visit": VisitId("v"),
        "site": SiteId("board"),
        "at_s": NOW_S - 600,
        "seconds": 1.0,
        "transfer_s": 0.0,
        "bytes_in": 0,
        "model": WEIGHTS,
        "topic": topic,
        "metric": "accuracy",
        "value": value,
        "items": 400,
        "standard_error": 0.02,
    }
    return sign_entry(Verification(**{**fields, **said}), (), key)


def serving(site: str, *deployments: ServingReading) -> Serving:
    return Serving(
        site=SiteId(site), at_s=NOW_S, memory_free_bytes=0, deployments=tuple(deployments)
    )


def figures(name: str, **said: Any) -> ServingReading:
    return ServingReading(**{"deployment": name, "in_flight": 0, "waiting": 0, **said})


def link(source: str, target: str, rtt_s: float, **said: Any) -> LinkReading:
    """Measured a minute ago unless `at_s` says otherwise; `loss` is a share."""
    at_s, loss = said.pop("at_s", NOW_S - 60), said.pop("loss", None)
    origin = SiteId(source)
    return LinkReading(
        source=origin,
        target=SiteId(target),
        rtt_s=Reading(rtt_s, at_s, origin),
        loss=None if loss is None else Reading(loss, at_s, origin),
    )


def state_of(nodes: Iterable[NodeDescriptor], *said: LinkReading | Finding | Serving) -> QrrtState:
    """All nodes are there."""
    state = QrrtState()
    for described in nodes:
        state.described(described, NOW_S)
        state.came(described.site, NOW_S)
    for fact in said:
        tell(state, fact)
    return state


def tell(state: QrrtState, fact: LinkReading | Finding | Serving) -> None:
    if isinstance(fact, LinkReading):
        state.absorb_link(fact, NOW_S)
    elif isinstance(fact, Finding):
        state.absorb_finding(fact, NOW_S)
    else:
        state.absorb_serving(fact, NOW_S)
