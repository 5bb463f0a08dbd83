"""Immutable, versioned views of the Query, Resource and Reachability Topology (QRRT).

A *row* is one deployment: one model at one facility. What is said of rows stands in objects, what
is measured of them in columns of equal length, so that a decision over many thousands of rows is
a few operations on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from daitn.objects.deployments import DeploymentDescriptor, FacilityDescriptor
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import Demand
from daitn.objects.readings import LinkReading

__all__ = [
    "Accuracies",
    "Accuracy",
    "Columns",
    "Deployed",
    "Flags",
    "Floats",
    "Paths",
    "Qrrt",
    "deployment_id",
]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def deployment_id(name: str, site: str) -> str:
    """`<model>@<site>`: how one deployment is named where a replica would not do."""
    return f"{name}@{site}"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is said of one deployment and of the facility that it is at."""

    site: SiteId
    descriptor: DeploymentDescriptor
    facility: FacilityDescriptor
    provider: OwnerId
    jurisdiction: str
    id: str
    """`<model>@<site>`"""

    @property
    def name(self) -> str:
        return self.descriptor.name


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of each row now. The arrays are read-only and of the rows' number."""

    there: Flags
    """Its site is alive and it says that it is ready."""
    degraded: Flags
    """A verification unit says that it answers worse than it did."""
    suspended_until_s: Floats
    """It failed lately and is left alone until then; seconds since the epoch."""
    first_token_s: Floats
    """From a slot to the first piece of an answer."""
    per_token_s: Floats
    in_flight: Floats
    """Queries being answered or waiting there, from all gateways, as last heard."""
    told_at_s: Floats
    """When the facility said so; 0: never."""
    error_share: Floats
    measured_at_s: Floats
    """When one of the four above was last heard; 0: never."""
    slots: Floats
    queue: Floats
    price_in: Floats
    """USD per token."""
    price_out: Floats


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What is known of the rows' accuracy on one topic, per row."""

    value: Floats
    """In [0, 1]; NaN: not known."""
    standard_error: Floats
    trust: NDArray[np.int8]
    """0 nothing, 1 claimed, 2 weights measured, 3 asked."""
    at_s: Floats
    """When the newest measurement in it was made."""


@dataclass(frozen=True, slots=True)
class Accuracies:
    """What is known of the rows' accuracies, per topic on which something is known."""

    topics: Mapping[str, Accuracy] = field(default_factory=dict)
    memo: dict[tuple[str | None, int], Accuracy] = field(
        default_factory=dict, compare=False, repr=False
    )
    """What `daitn.topology.qrrt.accuracy` worked out, per topic above and level of trust."""
    known: dict[tuple[str | None, int], Floats] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Likewise, with 0 where nothing is known."""


@dataclass(frozen=True, slots=True)
class Paths:
    """How the rows are reached from one gateway, per row."""

    rtt_s: Floats
    """Expected round trip over the best path, losses counted in; infinite: no path."""
    direct_rtt_s: Floats
    """Likewise with nobody in between."""
    relay: NDArray[np.intp]
    """Index in `relays` of the site in between; -1: none."""
    relays: tuple[SiteId, ...]
    measured: Flags
    """Whether it rests on a measurement, or is assumed."""
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out of these paths."""

    @property
    def everywhere(self) -> bool:
        """Whether there is a way to every row."""
        known: bool | None = self.memo.get("everywhere")
        if known is None:
            known = self.memo["everywhere"] = bool(np.isfinite(self.rtt_s).all())
        return known


@dataclass(frozen=True, slots=True)
class Qrrt:
    """One version of the inference topology. Versions share what did not change."""

    version: int
    at_s: float
    """When it last changed."""
    rows: tuple[Deployed, ...]
    """By name, then site."""
    columns: Columns
    row_of: Mapping[str, int]
    """`name@site` to row."""
    rows_of: Mapping[str, NDArray[np.intp]]
    """Model name to its rows."""
    accuracies: Accuracies
    nodes: Map[SiteId, NodeDescriptor] = field(default_factory=Map)
    """Every live node: facilities, gateways, verifiers and all others."""
    links: Map[SiteId, Map[SiteId, LinkReading]] = field(default_factory=Map)
    demand: Map[SiteId, Demand] = field(default_factory=Map)
    """What is asked, per gateway."""
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out of `rows` alone; versions with the same rows share it."""
