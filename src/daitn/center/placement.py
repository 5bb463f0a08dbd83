"""Turns the live QRRT into the placement optimiser's problem."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np
from numpy.typing import NDArray

from daitn.control.placement.optimiser import planned
from daitn.control.placement.problem import PlacementProblem
from daitn.control.placement.reconcile import hindrance
from daitn.control.queries.engine import NEAR
from daitn.control.queries.scoring import QIRCE
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.grants import full_name
from daitn.objects.identifiers import SiteId
from daitn.objects.placement import DesiredDeployment, PlacementView
from daitn.objects.queries import AUTO, Trust
from daitn.topology.qrrt.accuracy import expected_on
from daitn.topology.qrrt.paths import ASSUMED_RTT_S
from daitn.topology.qrrt.snapshot import Qrrt, deployment_id

__all__ = ["placement"]

_ASSUMED_RATE = 20.0
"""Queries per second of an unmeasured replica: four slots, a fifth of a second each."""
_ALIKE = NEAR * sum(QIRCE.weights.values()) / QIRCE.weights["accuracy"]
"""Smaller differences in accuracy do not change a choice."""
_LEAST_S = 1e-3
"""An answer occupies its slot for at least this long."""
_THROUGHPUT_BPS = 2e7
"""Assumed throughput of transfers of weights, in bytes per second: 160 Mbit/s."""


def placement(
    desired: Mapping[str, DesiredDeployment],
    snapshot: Qrrt,
    free_bytes: Mapping[SiteId, int],
) -> PlacementView:
    """The optimiser's changes to the deployments left to it, on this topology.

    `free_bytes`: memory left per facility once all desired deployments are in place.
    """
    problem = _problem(desired, snapshot, free_bytes)
    if problem is None:
        return PlacementView(changes=(), cost_now=0.0, cost_then=0.0)
    return planned(problem)


def _problem(
    desired: Mapping[str, DesiredDeployment],
    snapshot: Qrrt,
    free_bytes: Mapping[SiteId, int],
) -> PlacementProblem | None:
    deployments = [deployment for _, deployment in sorted(desired.items())]
    hosts = [n for _, n in sorted(snapshot.nodes.items()) if n.facility and n.facility.hosts]
    gateways = sorted(snapshot.demand)
    if not deployments or not hosts or not gateways:
        return None
    standing = np.array(
        [[host.site in deployment.places for host in hosts] for deployment in deployments]
    )
    size = np.array([float(deployment.model.size_bytes) for deployment in deployments])
    rate = np.array(
        [
            [
                _rate(snapshot, deployment, host.site) if _may_host(deployment, host) else 0.0
                for host in hosts
            ]
            for deployment in deployments
        ]
    )
    free = np.array([float(free_bytes.get(host.site, 0)) for host in hosts])
    return PlacementProblem(
        models=tuple(deployment.name for deployment in deployments),
        facilities=tuple(host.site for host in hosts),
        demand=_demand(snapshot, gateways, deployments),
        travel_s=np.array([[_rtt_s(snapshot, g, host.site) for host in hosts] for g in gateways]),
        rate=rate,
        size=size,
        memory=free + size @ standing,
        price=np.array([h.facility.price_usd_per_hour if h.facility else 0.0 for h in hosts]),
        standing=standing,
        fixed=standing & ~np.array([[deployment.intent.automatic] for deployment in deployments]),
        move_s=np.array(
            [
                [_move_s(snapshot, deployment, host.site) for host in hosts]
                for deployment in deployments
            ]
        ),
    )


def _may_host(deployment: DesiredDeployment, host: NodeDescriptor) -> bool:
    """Whether a facility may host a deployment. One placed by an operator stays there, and takes
    its share of demand and memory."""
    if not deployment.intent.automatic:
        return host.site in deployment.places
    return not host.cordon and not hindrance(deployment.model, host, None)


def _demand(
    snapshot: Qrrt, gateways: list[SiteId], deployments: list[DesiredDeployment]
) -> NDArray[np.float64]:
    """Queries per second, gateways by models.

    Queries to `auto` are shared equally by the models that are about as accurate on their topic as
    the best.
    """
    of_name = {name: [at] for at, one in enumerate(deployments) for name in _called(one)}
    of_topic: dict[str, list[int]] = {}
    asked = np.zeros((len(gateways), len(deployments)))
    for row, gateway in enumerate(gateways):
        for rate in snapshot.demand[gateway].rates:
            if rate.model != AUTO:
                models = of_name.get(rate.model, [])
            else:
                if rate.topic not in of_topic:
                    of_topic[rate.topic] = _fit(snapshot, deployments, rate.topic)
                models = of_topic[rate.topic]
            asked[row, models] += rate.per_s / max(1, len(models))
    return asked


def _called(deployment: DesiredDeployment) -> tuple[str, str]:
    """The name that queries use for it."""
    return deployment.name, full_name(deployment.model.owner, deployment.name)


def _fit(snapshot: Qrrt, deployments: list[DesiredDeployment], topic: str) -> list[int]:
    """Models whose accuracies QIRCE does not distinguish.

    A model without a replica is included: nothing shows that it is worse.
    """
    expected = expected_on(snapshot, topic, Trust.WEIGHTS)
    places = [snapshot.replicas(one.model.owner, one.name) for one in deployments]
    values = [max((float(expected[row]) for row in rows), default=inf) for rows in places]
    best = max((value for value in values if value < inf), default=0.0)
    return [at for at, value in enumerate(values) if value >= best - _ALIKE]


def _rate(snapshot: Qrrt, deployment: DesiredDeployment, site: SiteId) -> float:
    """Queries per second of a replica: measured, or measured for the model elsewhere, or assumed.

    An answer occupies its slot from request to last token.
    """
    id_ = deployment_id(deployment.name, site)
    rows = [snapshot.row_of[id_]] if id_ in snapshot.row_of else []
    rows = rows or [int(row) for row in snapshot.replicas(deployment.model.owner, deployment.name)]
    columns, tokens_out = snapshot.columns, _tokens_out(snapshot, deployment)
    rates = [
        float(columns.slots[row])
        / max(float(columns.first_token_s[row] + tokens_out * columns.per_token_s[row]), _LEAST_S)
        for row in rows
        if columns.measured_at_s[row] > 0
    ]
    return max(rates, default=_ASSUMED_RATE)


def _tokens_out(snapshot: Qrrt, deployment: DesiredDeployment) -> float:
    """Mean length of answers to queries for the model or for any."""
    rates = [
        rate
        for demand in snapshot.demand.values()
        for rate in demand.rates
        if rate.model in (*_called(deployment), AUTO)
    ]
    asked = sum(rate.per_s for rate in rates)
    return sum(rate.tokens_out * rate.per_s for rate in rates) / asked if asked else 0.0


def _move_s(snapshot: Qrrt, deployment: DesiredDeployment, site: SiteId) -> float:
    """Seconds to transfer the weights from the fastest holder."""
    targets = snapshot.links.get(site)
    links = [] if targets is None else [targets.get(holder) for holder in deployment.model.holders]
    measured = [link.throughput_bps.value for link in links if link and link.throughput_bps]
    return deployment.model.size_bytes / max(max(measured, default=_THROUGHPUT_BPS), 1.0)


def _rtt_s(snapshot: Qrrt, one: SiteId, other: SiteId) -> float:
    if one == other:
        return 0.0
    for source, target in ((one, other), (other, one)):
        targets = snapshot.links.get(source)
        link = None if targets is None else targets.get(target)
        if link is not None and link.rtt_s is not None:
            return link.rtt_s.value
    return ASSUMED_RTT_S
