"""The live QRRT: facts go in, immutable versions come out.

Facts may come in any order and more than once. Figures of a deployment that nobody has described
yet are dropped: the next ones come within a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from daitn.objects.deployments import DeploymentState
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.findings import Finding
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, Serving
from daitn.objects.readings import LinkReading
from daitn.topology.qrrt.columns import Column
from daitn.topology.qrrt.knowledge import Knowledge
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.snapshot import Columns, Deployed, Qrrt, deployment_id

__all__ = ["QrrtState"]

ASSUMED_FIRST_TOKEN_S = 0.2
ASSUMED_PER_TOKEN_S = 0.02
"""Of a deployment that nobody measured yet: a small model on one accelerator. It is asked soon if
others are slower, and what it then shows replaces this."""
NEWEST_WEIGHT = 0.2
"""Weight of the newest query in the moving averages: they follow a change within some ten."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""A deployment that fails is left alone for so long, twice as long after each further failure;
Envoy's outlier detection ejects for 30 s at a time."""

_FLOATS = (
    "suspended_until_s",
    "first_token_s",
    "per_token_s",
    "in_flight",
    "error_share",
    "measured_at_s",
    "slots",
    "queue",
    "price_in",
    "price_out",
)
_FLAGS = ("there", "degraded")
_SAID = ("slots", "queue", "price_in", "price_out")
"""Columns of what descriptors say; all others are measured."""


class QrrtState:
    """Absorbs what nodes say and measure. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._version = 0
        self._changed_at_s = 0.0
        self._nodes: Map[SiteId, NodeDescriptor] = Map()
        self._alive: set[SiteId] = set()
        self._links: Map[SiteId, Map[SiteId, LinkReading]] = Map()
        self._demand: Map[SiteId, Demand] = Map()
        self._rows: tuple[Deployed, ...] = ()
        self._row_of: dict[str, int] = {}
        self._ids_at: dict[SiteId, tuple[str, ...]] = {}
        self._rows_of: dict[str, NDArray[np.intp]] = {}
        self._floats: dict[str, Column[np.float64]] = {n: Column(np.zeros(0)) for n in _FLOATS}
        self._flags = {name: Column(np.zeros(0, np.bool_)) for name in _FLAGS}
        self._memo: dict[Any, Any] = {}
        self._failures: dict[str, int] = {}
        self._knowledge = Knowledge()
        self._snapshot: Qrrt | None = None

    def snapshot(self) -> Qrrt:
        """The topology as it is known now. Costs nothing where nothing changed."""
        if self._snapshot is None:
            columns: dict[str, Any] = {name: c.share() for name, c in self._floats.items()}
            columns |= {name: c.share() for name, c in self._flags.items()}
            self._snapshot = Qrrt(
                version=self._version,
                at_s=self._changed_at_s,
                rows=self._rows,
                columns=Columns(**columns),
                row_of=self._row_of,
                rows_of=self._rows_of,
                accuracies=self._knowledge.share(),
                nodes=self._nodes,
                links=self._links,
                demand=self._demand,
                memo=self._memo,
            )
        return self._snapshot

    def described(self, node: NodeDescriptor, now_s: float) -> None:
        """A node says this of itself; what it says later replaces it."""
        known = self._nodes.get(node.site)
        if known is not None and _rank(node) <= _rank(known):
            return
        self._nodes = self._nodes.set(node.site, node)
        self._knowledge.described(node)
        self._reconsider(node.site, now_s)

    def came(self, site: SiteId, now_s: float) -> None:
        """A node is there."""
        if site not in self._alive:
            self._alive.add(site)
            self._tell_there(site)
            self._changed(now_s)

    def lost(self, site: SiteId, now_s: float) -> None:
        """A node is gone. Its deployments stay known and are not there."""
        if site in self._alive:
            self._alive.discard(site)
            self._tell_there(site)
            self._changed(now_s)

    def absorb_link(self, link: LinkReading, now_s: float) -> None:
        """`link.source` measured this."""
        targets = self._links.get(link.source) or Map()
        self._links = self._links.set(link.source, targets.set(link.target, link))
        self._changed(now_s)

    def absorb_demand(self, demand: Demand, now_s: float) -> None:
        """A gateway says what is asked there."""
        self._demand = self._demand.set(demand.site, demand)
        self._changed(now_s)

    def absorb_finding(self, finding: Finding, now_s: float) -> None:
        """A verification unit found this; its signature was checked."""
        row = self._row_of.get(deployment_id(finding.deployment, finding.site))
        self._knowledge.found(finding)
        if row is not None:
            self._know(row)
            self._changed(now_s)

    def absorb_serving(self, serving: Serving, now_s: float) -> None:
        """A facility says how its deployments do. Figures that make no sense are left out."""
        floats = self._floats
        for reading in serving.deployments:
            row = self._row_of.get(f"{reading.deployment}@{serving.site}")
            if row is None:
                continue
            floats["in_flight"][row] = max(0, reading.in_flight + reading.waiting)
            for name in ("first_token_s", "per_token_s", "error_share"):
                value = getattr(reading, name)
                if value is not None and 0.0 <= value < math.inf:
                    floats[name][row] = value
            floats["measured_at_s"][row] = now_s
        self._changed(now_s)

    def observe(self, site: str, name: str, seen: Observation, now_s: float) -> None:
        """A gateway, this one, saw how a deployment served a query."""
        id_ = f"{name}@{site}"
        row = self._row_of.get(id_)
        if row is None:
            return
        floats = self._floats
        share = floats["error_share"]
        share[row] = _averaged(share[row], float(seen.failed))
        if seen.failed:
            failures = self._failures[id_] = self._failures.get(id_, 0) + 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
            floats["suspended_until_s"][row] = now_s + pause_s
        elif self._failures.pop(id_, 0):
            floats["suspended_until_s"][row] = 0.0
        for name_, value in (
            ("first_token_s", seen.first_token_s),
            ("per_token_s", seen.per_token_s),
        ):
            if value is not None and 0.0 <= value < math.inf:
                column = floats[name_]
                known = floats["measured_at_s"][row] > 0
                column[row] = _averaged(column[row], value) if known else value
        floats["measured_at_s"][row] = now_s
        self._changed(now_s)

    def _changed(self, now_s: float) -> None:
        self._version += 1
        self._changed_at_s = now_s
        self._snapshot = None

    def _reconsider(self, site: SiteId, now_s: float) -> None:
        """Rows of one site anew, from its descriptor."""
        own = sorted(_deployed(self._nodes[site]), key=_order)
        before = self._ids_at.get(site, ())
        self._ids_at[site] = tuple(row.id for row in own)
        if self._ids_at[site] != before:
            others = (row for row in self._rows if row.site != site)
            rows = tuple(sorted((*others, *own), key=_order))
            self._rearrange(rows)
        else:
            changed = list(self._rows)
            for row in own:
                changed[self._row_of[row.id]] = row
            rows = tuple(changed)
        self._rows = rows
        self._memo = {}
        for row in own:
            self._describe(self._row_of[row.id], row)
        for row in rows if self._knowledge.anew else own:
            self._know(self._row_of[row.id])
        self._knowledge.anew = False
        self._changed(now_s)

    def _rearrange(self, rows: tuple[Deployed, ...]) -> None:
        source = np.array([self._row_of.get(row.id, -1) for row in rows], np.intp)
        fresh = {name: np.zeros(len(rows)) for name in _FLOATS}
        fresh["first_token_s"] += ASSUMED_FIRST_TOKEN_S
        fresh["per_token_s"] += ASSUMED_PER_TOKEN_S
        for name, column in self._floats.items():
            column.moved(source, fresh[name])
        for flags in self._flags.values():
            flags.moved(source, np.zeros(len(rows), np.bool_))
        self._knowledge.moved(source)
        self._row_of = {row.id: index for index, row in enumerate(rows)}
        of: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            of.setdefault(row.name, []).append(index)
        self._rows_of = {name: np.array(indices, np.intp) for name, indices in of.items()}
        self._failures = {id_: n for id_, n in self._failures.items() if id_ in self._row_of}

    def _describe(self, row: int, deployed: Deployed) -> None:
        said = deployed.descriptor
        self._floats["slots"][row] = said.slots
        self._floats["queue"][row] = said.queue
        self._floats["price_in"][row] = said.price_usd_per_1k_in / 1000
        self._floats["price_out"][row] = said.price_usd_per_1k_out / 1000
        self._flags["there"][row] = self._is_there(deployed)

    def _tell_there(self, site: SiteId) -> None:
        for index, row in enumerate(self._rows):
            if row.site == site:
                self._flags["there"][index] = self._is_there(row)

    def _is_there(self, row: Deployed) -> bool:
        return row.site in self._alive and row.descriptor.state is DeploymentState.READY

    def _know(self, row: int) -> None:
        self._flags["degraded"][row] = self._knowledge.know(row, self._rows[row])


def _deployed(node: NodeDescriptor) -> Iterator[Deployed]:
    facility = node.facility
    if facility is None:
        return
    seen: set[str] = set()
    for descriptor in facility.deployments:
        if descriptor.name not in seen:
            seen.add(descriptor.name)
            id_ = deployment_id(descriptor.name, node.site)
            yield Deployed(node.site, descriptor, facility, node.owner, node.jurisdiction, id_)


def _order(row: Deployed) -> tuple[str, str]:
    return row.descriptor.name, row.site


def _rank(node: NodeDescriptor) -> tuple[float, int]:
    return node.started_at_s, node.version


def _averaged(before: float, sample: float) -> float:
    return before + NEWEST_WEIGHT * (sample - before)
