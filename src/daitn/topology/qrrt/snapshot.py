"""Immutable, versioned views of the Query, Resource and Reachability Topology (QRRT).

A *row* is one deployment: one model at one facility. Descriptors of rows are objects; measurements
are columns of equal length, so a decision over many thousands of rows takes a few array operations.

A row keeps its number while it is known. Where one is removed, the last takes its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from daitn.objects.cordons import Cordon
from daitn.objects.deployments import DeploymentDescriptor, FacilityDescriptor
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.grants import full_name
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import Demand
from daitn.objects.readings import LinkReading
from daitn.topology.arrays import Flags, Floats

__all__ = [
    "NO_ROWS",
    "Accuracies",
    "Accuracy",
    "Columns",
    "Deployed",
    "Paths",
    "Qrrt",
    "deployment_id",
]

NO_ROWS = np.zeros(0, np.intp)


def deployment_id(name: str, site: str) -> str:
    """`<model>@<site>`: identifies one deployment where the model's name alone would be
    ambiguous."""
    return f"{name}@{site}"


@dataclass(frozen=True, slots=True)
class Deployed:
    """The descriptor of one deployment, and of its facility."""

    site: SiteId
    descriptor: DeploymentDescriptor
    facility: FacilityDescriptor
    provider: OwnerId
    jurisdiction: str
    id: str
    """`<model>@<site>`"""
    key: str
    """The key shared by its replicas: `<owner>/<model>`, or the name in a network without a
    roster."""
    called: tuple[str, ...]
    """The names that queries may use, `key` first."""
    cordon: Cordon | None = None
    """Of its site."""

    @property
    def name(self) -> str:
        return self.descriptor.name

    @property
    def cordoned(self) -> str:
        """Why it gets no queries, in words, if its site is cordoned. What a control centre placed
        at a drained site keeps answering until it has moved."""
        if self.cordon is None or (self.cordon.draining and self.descriptor.placed):
            return ""
        return str(self.cordon)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifiers say of a deployment beside its figures. No owner of several decides alone."""

    measured_by: tuple[SiteId, ...] = ()
    """Those that measured it lately."""
    degraded_by: tuple[SiteId, ...] = ()
    """Of these, those that say that it answers worse than before, or two-faced."""
    two_faced_by: tuple[SiteId, ...] = ()
    """Of these, those that say that it answers examinations better than single questions."""
    unanswered_by: tuple[SiteId, ...] = ()
    """Of these, those to most of whose single questions it gives no answer."""
    contradicted: tuple[SiteId, ...] = ()
    """Verifiers whose measured accuracy most others contradict."""
    degraded: bool = False
    """Whether most owners of those that measured it lately say so, each by most of its own."""
    two_faced: bool = False
    """Likewise."""


class Columns(NamedTuple):
    """The current figures of each row. The arrays are read-only and have one entry per row."""

    available: Flags
    """Its site is alive and it reports that it is ready."""
    degraded: Flags
    """Most owners of verifiers that measured it lately say that it answers worse than before."""
    suspended_until_s: Floats
    """It failed recently and is suspended until then; seconds since the epoch."""
    first_token_s: Floats
    """From taking a slot to the first piece of an answer."""
    per_token_s: Floats
    in_flight: Floats
    """Queries being answered or waiting there, from all gateways, as last reported."""
    reported_at_s: Floats
    """When the facility reported it; 0 means never."""
    error_share: Floats
    measured_at_s: Floats
    """When one of the four above was last received; 0 means never."""
    slots: Floats
    queue: Floats
    price_in: Floats
    """USD per token."""
    price_out: Floats
    context_tokens: NDArray[np.int64]
    """Maximum for prompt and answer together, in its own tokens."""
    tokens_per_1: Floats
    """Its tokens per character of one byte in UTF-8."""
    tokens_per_2: Floats
    tokens_per_3: Floats
    tokens_per_4: Floats
    restricted: Flags
    """Its owner restricts who may query it."""

    @property
    def token_rates(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Tokens per character of one to four bytes."""
        return self.tokens_per_1, self.tokens_per_2, self.tokens_per_3, self.tokens_per_4


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The rows' accuracy on one topic."""

    value: Floats
    """In [0, 1]; NaN means unknown."""
    standard_error: Floats
    trust: NDArray[np.int8]
    """0 nothing, 1 claimed, 2 weights measured, 3 deployment queried."""
    at_s: Floats
    """Time of the newest measurement in it."""


@dataclass(frozen=True, slots=True)
class Accuracies:
    """The rows' accuracies, per topic on which anything is known."""

    topics: Mapping[str, Accuracy] = field(default_factory=dict)
    cache: dict[tuple[str | None, int], Accuracy] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Cache of `daitn.topology.qrrt.accuracy`, by topic of `topics` and level of trust."""
    expected: dict[tuple[str | None, int], Floats] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Likewise, with the prior where unknown."""


@dataclass(frozen=True, slots=True)
class Paths:
    """How one gateway reaches each row."""

    rtt_s: Floats
    """Expected round trip over the best path, including losses; infinite means no path."""
    direct_rtt_s: Floats
    """Likewise without a relay."""
    relay: NDArray[np.intp]
    """Index in `relays` of the relay; -1 means none."""
    relays: tuple[SiteId, ...]
    measured: Flags
    """Whether it is based on a measurement; otherwise assumed."""
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Cache of values derived from these paths."""

    @property
    def everywhere(self) -> bool:
        """Whether every row is reachable."""
        known: bool | None = self.cache.get("everywhere")
        if known is None:
            known = self.cache["everywhere"] = bool(np.isfinite(self.rtt_s).all())
        return known

    def apart(self) -> Paths:
        """The same paths with a separate cache, for another thread."""
        return replace(self, cache={})

    def via(self, row: int) -> SiteId | None:
        """The site in between on the path to a row; `None` means there is none."""
        at = int(self.relay[row])
        return None if at < 0 else self.relays[at]


@dataclass(frozen=True, slots=True)
class Qrrt:
    """One version of the inference topology. Versions share unchanged parts."""

    version: int
    at_s: float
    """Time of the last change."""
    rows: tuple[Deployed, ...]
    described: NDArray[np.int64]
    """Per row, the number of its descriptor. Numbers are never reused, so equal numbers show that a
    row is the same in two versions."""
    columns: Columns
    row_of: Mapping[str, int]
    """`name@site` to row."""
    rows_of: Mapping[str, NDArray[np.intp]]
    """Names of a model to its rows: `owner/name`, and a bare name for whoever has it."""
    accuracies: Accuracies
    nodes: Map[SiteId, NodeDescriptor] = field(default_factory=Map)
    """Every live node: facilities, gateways, verifiers and all others."""
    gateways: tuple[SiteId, ...] = ()
    """The gateways among them, by name."""
    links: Map[SiteId, Map[SiteId, LinkReading]] = field(default_factory=Map)
    demand: Map[SiteId, Demand] = field(default_factory=Map)
    """Demand per gateway."""
    verdicts: Map[str, Verdict] = field(default_factory=Map)
    """Of measured deployments, by `name@site`."""
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Cache of derived values, shared by all versions: each entry names what it is derived from
    (`daitn.topology.qrrt.cache`)."""

    def replicas(self, owner: str, name: str) -> NDArray[np.intp]:
        """The rows of an owner's model."""
        rows = self.rows_of.get(full_name(owner, name))
        return self.rows_of.get(name, NO_ROWS) if rows is None else rows

    def apart(self) -> Qrrt:
        """The same version with separate caches, for another thread."""
        return replace(self, accuracies=Accuracies(self.accuracies.topics), cache={})
