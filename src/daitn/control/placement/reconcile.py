"""Derives the next requests to facilities from the desired and the observed deployments.

Pure: each call requests what is missing, and retires nothing before its successors are ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from daitn.objects.access import allows
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState
from daitn.objects.descriptors import ModelDescriptor, NodeDescriptor
from daitn.objects.identifiers import SiteId
from daitn.objects.placement import AUTO_REPLICAS, DesiredDeployment

__all__ = ["Deploy", "Retire", "answers", "chosen_places", "deployed_at", "hindrance", "next_steps"]


@dataclass(frozen=True, slots=True)
class Deploy:
    """Ask a facility to deploy a model."""

    desired: DesiredDeployment
    site: SiteId


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask a facility to retire a deployment."""

    name: str
    site: SiteId


def next_steps(
    desired: Mapping[str, DesiredDeployment],
    retired: Set[str],
    nodes: Iterable[NodeDescriptor],
) -> list[Deploy | Retire]:
    """Requests that bring the live `nodes` closer to the desired state.

    `retired`: names that were desired once; a facility that was offline may still have them.
    Deployments that were never desired here are left alone.
    """
    live = {node.site: node for node in nodes if node.facility is not None}
    steps: list[Deploy | Retire] = []
    for wish in desired.values():
        steps += [Deploy(wish, site) for site in wish.places if _lacks(live.get(site), wish)]
        ready = [site for site in wish.places if answers(live.get(site), wish)]
        if len(ready) == len([site for site in wish.places if site in live]) and ready:
            steps += [
                Retire(wish.name, site)
                for site, node in sorted(live.items())
                if site not in wish.places and _hosted(node, wish.name)
            ]
    # Iterate over deployments, because far more names may have been retired over time.
    gone = {
        (deployment.name, site)
        for site, node in live.items()
        for deployment in (node.facility.deployments if node.facility else ())
        if deployment.name in retired
        and deployment.name not in desired
        and _hosted(node, deployment.name)
    }
    return steps + [Retire(name, site) for name, site in sorted(gone)]


def chosen_places(
    wish: DesiredDeployment,
    nodes: Iterable[NodeDescriptor],
    free_bytes: Mapping[SiteId, int],
    away: frozenset[SiteId],
) -> tuple[SiteId, ...]:
    """Where to place a deployment: first where it is placed now, if that is still possible.

    Then where it is ready already, and at the facilities with the most free memory: never at a
    cordoned one, and no longer at one that is drained. `free_bytes`:
    memory left per facility. `away`: facilities that left, but too recently to place their
    deployments elsewhere.
    """
    live = {node.site: node for node in nodes}
    drained = {site for site, node in live.items() if _is_drained(node)}
    if wish.intent.to:
        # Its owner named these: if there are several, those that stay take over from one that is
        # drained.
        return tuple(site for site in wish.intent.to if site not in drained) or wish.intent.to
    staying = [
        site
        for site in wish.places
        if site not in drained
        and (site in away or (site in live and not hindrance(wish.model, live[site], None)))
    ]
    if wish.intent.replicas == AUTO_REPLICAS:
        lacking = 0 if staying else 1
    else:
        lacking = wish.intent.replicas - len(staying)
    if lacking <= 0:
        keep = len(staying) if wish.intent.replicas == AUTO_REPLICAS else wish.intent.replicas
        return tuple(staying[:keep])
    answering = {site for site, node in live.items() if answers(node, wish)}
    candidates = [
        node
        for site, node in live.items()
        if site not in staying
        and not node.cordon
        and not hindrance(wish.model, node, None if site in answering else free_bytes.get(site))
    ]
    candidates.sort(
        key=lambda node: (
            node.site not in answering,
            _load(node),
            -free_bytes.get(node.site, 0),
            node.site,
        )
    )
    return (*staying, *(node.site for node in candidates[:lacking]))


def _is_drained(node: NodeDescriptor) -> bool:
    return bool(node.cordon and node.cordon.draining)


def hindrance(model: ModelDescriptor, node: NodeDescriptor, free_bytes: int | None) -> str:
    """Why a model cannot be hosted at a node; empty if it can. `free_bytes` of none is not
    checked."""
    facility = node.facility
    if facility is None:
        return f"{node.site} is not a facility"
    if not facility.hosts:
        return f"{node.site} hosts no models of others"
    if model.recipe not in facility.recipes:
        return f"{node.site} cannot host models of recipe {model.recipe}"
    if not allows(model.release_to, node.jurisdiction):
        return f"{model.name} may not travel to {node.jurisdiction}"
    if free_bytes is not None and model.size_bytes > free_bytes:
        return f"{node.site} has {free_bytes} bytes left, {model.name} takes {model.size_bytes}"
    return ""


def deployed_at(node: NodeDescriptor, name: str) -> DeploymentDescriptor | None:
    """The node's descriptor of a deployment, whatever its runtime."""
    if node.facility is None:
        return None
    return next((d for d in node.facility.deployments if d.name == name), None)


def _hosted(node: NodeDescriptor, name: str) -> bool:
    """Whether the name was placed by us and is not already draining."""
    found = deployed_at(node, name)
    return found is not None and found.placed and found.state is not DeploymentState.DRAINING


def _lacks(node: NodeDescriptor | None, wish: DesiredDeployment) -> bool:
    if node is None or node.cordon:
        return False
    found = deployed_at(node, wish.name)
    return (
        found is None
        or found.manifest != wish.model.manifest
        or found.state is DeploymentState.DRAINING
        or found.terms != wish.terms
        or (found.grant, found.name_grant) != (wish.intent.grant, wish.name_grant)
    )


def answers(node: NodeDescriptor | None, wish: DesiredDeployment) -> bool:
    """Whether a node answers with the weights of a deployment."""
    if node is None:
        return False
    found = deployed_at(node, wish.name)
    return (
        found is not None
        and found.manifest == wish.model.manifest
        and found.state is DeploymentState.READY
    )


def _load(node: NodeDescriptor) -> int:
    return len(node.facility.deployments) if node.facility else 0
