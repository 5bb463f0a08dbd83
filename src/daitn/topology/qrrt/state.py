"""The live QRRT: facts go in, immutable versions come out.

Messages of nodes and verifiers, and links, may arrive in any order and more than once. Readings of
a deployment without a descriptor, and demand at a gateway that is not available, are dropped: the
next ones arrive within a second. Invalid values are left out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from immutables import Map
from numpy.typing import NDArray

from daitn.objects.deployments import DeploymentState
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.findings import Finding
from daitn.objects.grants import full_name
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, DemandRate, Serving
from daitn.objects.readings import LinkReading
from daitn.objects.tokens import BYTES, USUAL_RATES, learned_rates
from daitn.topology.network import is_later
from daitn.topology.qrrt.columns import Column
from daitn.topology.qrrt.knowledge import Knowledge
from daitn.topology.qrrt.links import Links
from daitn.topology.qrrt.observation import (
    MOST_S,
    Observation,
    PromptSize,
    Seen,
    age_of,
    averaged,
    figures,
)
from daitn.topology.qrrt.recovery import Recovery
from daitn.topology.qrrt.snapshot import NO_ROWS, Columns, Deployed, Qrrt, deployment_id

__all__ = ["QrrtState"]

ASSUMED_FIRST_TOKEN_S = 0.001
ASSUMED_PER_TOKEN_S = 0.0002
"""For an unmeasured deployment: better than any real one, so that it is tried and measured.
Optimistic initial values: Sutton and Barto, "Reinforcement Learning", section 2.6."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""A deployment that fails is suspended for this long, and twice as long after each further failure;
Envoy's outlier detection ejects for 30 s at a time."""
FORGET_AFTER_S = 3600.0
"""A node that has been gone this long is forgotten with everything it has, as in the DRRT."""
MOST_RATES = 256
"""Kinds of queries per gateway; a gateway itself distinguishes no more."""

_RATES = dict(zip([f"tokens_per_{size}" for size in BYTES], USUAL_RATES, strict=True))
_FLOATS = {
    "suspended_until_s": 0.0,
    "first_token_s": ASSUMED_FIRST_TOKEN_S,
    "per_token_s": ASSUMED_PER_TOKEN_S,
    "in_flight": 0.0,
    "reported_at_s": 0.0,
    "error_share": 0.0,
    "measured_at_s": 0.0,
    "slots": 0.0,
    "queue": 0.0,
    "price_in": 0.0,
    "price_out": 0.0,
    **_RATES,
}
"""Initial values of each column."""
_FLAGS = ("available", "degraded", "restricted")
_SERVED = (("first_token_s", MOST_S), ("per_token_s", MOST_S), ("error_share", 1.0))
"""Figures that facilities report of their deployments, and their upper bounds."""
_RATE_STEP = 0.002
"""A token rate changes by at least this share, so that columns are not copied for less."""


class QrrtState:
    """Absorbs what nodes publish and measure. Times are seconds since the Unix epoch."""

    def __init__(self, *, scoped: bool = False, origin: SiteId | None = None) -> None:
        """`scoped`: whether a model's name belongs to its owner, so that a bare name needs a
        `name_grant`; else it means every deployment of that name. `origin`: the site that queries
        set out from, all of whose links are kept."""
        self._scoped = scoped
        self._version = 0
        self._changed_at_s = 0.0
        self._nodes: dict[SiteId, NodeDescriptor] = {}
        self._live: Map[SiteId, NodeDescriptor] = Map()
        self._alive: set[SiteId] = set()
        self._gone_at_s: OrderedDict[SiteId, float] = OrderedDict()
        """Since when nodes have been gone, or described but never available; longest first."""
        self._links = Links(origin)
        self._demand: Map[SiteId, Demand] = Map()
        self._gateways: tuple[SiteId, ...] = ()
        self._rows: list[Deployed] = []
        self._shared_rows: tuple[Deployed, ...] | None = ()
        self._row_of: Map[str, int] = Map()
        self._ids_at: dict[SiteId, tuple[str, ...]] = {}
        self._rows_of: Map[str, NDArray[np.intp]] = Map()
        self._floats = {
            name: Column[np.float64](np.float64, fresh) for name, fresh in _FLOATS.items()
        }
        self._flags = {name: Column[np.bool_](np.bool_, False) for name in _FLAGS}
        self._context_tokens = Column[np.int64](np.int64, 0)
        self._token_rates = tuple(self._floats[name] for name in _RATES)
        self._described = Column[np.int64](np.int64, 0)
        self._columns: tuple[Column[Any], ...] = (
            *self._floats.values(),
            *self._flags.values(),
            self._context_tokens,
            self._described,
        )
        named: dict[str, Column[Any]] = {
            **self._floats,
            **self._flags,
            "context_tokens": self._context_tokens,
        }
        self._snapshot_columns = [named[name] for name in Columns._fields]
        """The columns in snapshots, in the order of `Columns`."""
        self._descriptors = 0
        """Number of descriptors so far, by which they are numbered."""
        self._cache: dict[Any, Any] = {}
        self._failures: dict[str, int] = {}
        self._seen: dict[str, Seen] = {}
        self._recoveries: dict[str, dict[str, Recovery]] = {}
        self._knowledge = Knowledge()
        self._snapshot: Qrrt | None = None

    def snapshot(self) -> Qrrt:
        """The current topology. Costs nothing if nothing changed."""
        if self._snapshot is None:
            if self._shared_rows is None:
                self._shared_rows = tuple(self._rows)
            self._snapshot = Qrrt(
                version=self._version,
                at_s=self._changed_at_s,
                rows=self._shared_rows,
                described=self._described.share(),
                columns=Columns._make([column.share() for column in self._snapshot_columns]),
                row_of=self._row_of,
                rows_of=self._rows_of,
                accuracies=self._knowledge.share(),
                nodes=self._live,
                gateways=self._gateways,
                links=self._links.known,
                demand=self._demand,
                verdicts=self._knowledge.verdicts,
                cache=self._cache,
            )
        return self._snapshot

    def described(self, node: NodeDescriptor, now_s: float) -> None:
        """A node described itself; later descriptors replace earlier ones."""
        known = self._nodes.get(node.site)
        if known is not None and not is_later(node, known):
            return
        self._take(node, now_s)

    def entitled(self, node: NodeDescriptor, now_s: float) -> None:
        """Other deployments of a known node may answer now, without a new descriptor."""
        known = self._nodes.get(node.site)
        if known is not None and known != node and not is_later(known, node):
            self._take(node, now_s)

    def _take(self, node: NodeDescriptor, now_s: float) -> None:
        site, known = node.site, self._nodes.get(node.site)
        self._nodes[site] = node
        if site in self._alive:
            self._tell_live(site, node)
        else:
            self._gone_at_s.setdefault(site, now_s)
        if self._knowledge.described(node):
            self._believe_anew(site)
        if known is None or _row_facts(node) != _row_facts(known):
            self._reconsider(site)
        self._forget(now_s)
        self._changed(now_s)

    def came(self, site: SiteId, now_s: float) -> None:
        """A node became available."""
        if site not in self._alive:
            self._alive.add(site)
            self._gone_at_s.pop(site, None)
            self._tell_live(site, self._nodes.get(site))
            self._update_available(site)
            self._changed(now_s)

    def lost(self, site: SiteId, now_s: float) -> None:
        """A node has left. Its deployments stay known for a while, as unavailable."""
        if site in self._alive:
            self._alive.discard(site)
            self._gone_at_s[site] = now_s
            self._tell_live(site, None)
            if site in self._demand:
                self._demand = self._demand.delete(site)
            self._update_available(site)
            self._forget(now_s)
            self._changed(now_s)

    def removed(self, site: SiteId, now_s: float) -> None:
        """A node is no longer a member: its deployments, links and measurements are forgotten."""
        self.lost(site, now_s)
        if self._gone_at_s.pop(site, None) is None:
            return
        for id_ in self._knowledge.removed(site):
            if id_ in self._row_of:
                self._know(self._row_of[id_])
        self._believe_anew(site)
        self._forget_node(site)
        self._changed(now_s)

    def absorb_link(self, link: LinkReading, now_s: float) -> None:
        """`link.source` measured this. Raises `InvalidInput` if a value is negative or not
        finite."""
        if self._links.absorb_from(link, self._nodes, now_s):
            self._changed(now_s)

    def absorb_demand(self, demand: Demand, now_s: float) -> None:
        """A gateway published its demand."""
        if demand.site in self._live and math.isfinite(demand.at_s):
            rates = tuple(rate for rate in demand.rates[:MOST_RATES] if _sensible(rate))
            bounded = msgspec.structs.replace(demand, rates=rates)
            self._demand = self._demand.set(demand.site, bounded)
            self._changed(now_s)

    def absorb_finding(self, finding: Finding, now_s: float) -> None:
        """A verifier published a finding, whose signature was checked."""
        if now_s < finding.at_s < math.inf:
            finding = msgspec.structs.replace(finding, at_s=now_s)
        for id_ in self._knowledge.found(finding):
            row = self._row_of.get(id_)
            if row is not None:
                self._know(row)
                self._changed(now_s)

    def absorb_serving(self, serving: Serving, now_s: float) -> None:
        """A facility published readings of its deployments."""
        floats = self._floats
        for reading in serving.deployments:
            id_ = f"{reading.deployment}@{serving.site}"
            row = self._row_of.get(id_)
            if row is None:
                continue
            floats["in_flight"][row] = max(0, reading.in_flight) + max(0, reading.waiting)
            floats["reported_at_s"][row] = now_s
            seen = self._seen.get(id_)
            for name, most in _SERVED:
                reported = getattr(reading, name)
                if reported is not None and 0.0 <= reported <= most:
                    if name != "error_share":
                        reported = self._expected(id_, name, reported, now_s)
                    believed = reported if seen is None else seen.believed(name, reported, now_s)
                    floats[name][row] = believed
                    if name == "first_token_s":
                        floats["measured_at_s"][row] = now_s
        self._changed(now_s)

    def _expected(self, id_: str, figure: str, reported: float, now_s: float) -> float:
        known = self._recoveries.setdefault(id_, {})
        if figure not in known:
            known[figure] = Recovery(reported, now_s)
        return known[figure].expected(reported, now_s)

    def observe(self, site: str, name: str, seen: Observation, now_s: float) -> None:
        """This process's gateway observed how a deployment served a query."""
        id_ = f"{name}@{site}"
        row = self._row_of.get(id_)
        if row is None:
            return
        floats = self._floats
        if seen.failed:
            failures = self._failures[id_] = self._failures.get(id_, 0) + 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
            floats["suspended_until_s"][row] = now_s + pause_s
        elif self._failures.pop(id_, 0):
            floats["suspended_until_s"][row] = 0.0
        measured = floats["measured_at_s"][row] > 0
        own = self._seen.setdefault(id_, Seen())
        for figure, value in figures(seen):
            column = floats[figure]
            assumed = not measured and figure != "error_share"
            age_s = age_of(figure, own.age_s(now_s))
            column[row] = value if assumed else averaged(column[row], value, age_s)
        floats["measured_at_s"][row] = now_s
        if seen.prompt is not None:
            self._learn_rates(row, seen.prompt)
        own.take(seen, now_s)
        self._changed(now_s)

    def _learn_rates(self, row: int, prompt: PromptSize) -> None:
        one, two, three, four = (float(column[row]) for column in self._token_rates)
        learned = learned_rates((one, two, three, four), prompt.characters, prompt.tokens)
        self._rate(row, learned)

    def _rate(self, row: int, rates: Iterable[float]) -> None:
        for column, rate in zip(self._token_rates, rates, strict=True):
            if abs(rate - column[row]) > _RATE_STEP * rate:
                column[row] = rate

    def _changed(self, now_s: float) -> None:
        self._version += 1
        self._changed_at_s = now_s
        self._snapshot = None

    def _reconsider(self, site: SiteId) -> None:
        """Rebuild one site's rows from its descriptor; none if it is forgotten."""
        node = self._nodes.get(site)
        own = (
            {} if node is None else {row.id: row for row in sorted(self._deployed(node), key=_name)}
        )
        for id_ in self._ids_at.pop(site, ()):
            if id_ not in own:
                self._remove(id_)
        if own:
            self._ids_at[site] = tuple(own)
        new = [row for id_, row in own.items() if id_ not in self._row_of]
        if new:
            self._add(new)
        for id_, row in own.items():
            self._describe(self._row_of[id_], row)
            self._know(self._row_of[id_])

    def _believe_anew(self, unit: SiteId) -> None:
        """Recompute the rows with evidence that a verifier signed, or with findings of it."""
        found = set(self._knowledge.measured_by(unit))
        for number, row in enumerate(self._rows):
            signed = any(entry.fact.site == unit for entry in row.descriptor.evidence)
            if signed or row.id in found:
                self._know(number)

    def _forget(self, now_s: float) -> None:
        """Forget nodes that have long been gone."""
        while self._gone_at_s:
            site, gone_at_s = next(iter(self._gone_at_s.items()))
            if gone_at_s > now_s - FORGET_AFTER_S:
                return
            del self._gone_at_s[site]
            self._forget_node(site)

    def _forget_node(self, site: SiteId) -> None:
        self._nodes.pop(site, None)
        for id_ in self._knowledge.forgotten(site):
            if id_ in self._row_of:
                self._know(self._row_of[id_])
        self._reconsider(site)
        self._links.forget(site)

    def _add(self, rows: list[Deployed]) -> None:
        """Append new rows."""
        for number, row in enumerate(rows, len(self._rows)):
            self._row_of = self._row_of.set(row.id, number)
            self._call(row.called, number)
        self._rows += rows
        for column in self._columns:
            column.add(len(rows))
        for number, row in enumerate(rows, len(self._rows) - len(rows)):
            self._rate(number, row.descriptor.tokens_per_character or USUAL_RATES)
        self._knowledge.add(len(rows))

    def _remove(self, id_: str) -> None:
        """Remove a row; the last one takes its number."""
        number, last = self._row_of[id_], len(self._rows) - 1
        row, moved = self._rows[number], self._rows.pop()
        self._row_of = self._row_of.delete(id_)
        self._call_off(row.called, number)
        if number != last:
            self._rows[number] = moved
            self._row_of = self._row_of.set(moved.id, number)
            for name in moved.called:
                replicas = self._rows_of[name]
                self._tell_replicas(name, np.where(replicas == last, number, replicas))
        for column in self._columns:
            column.remove(number)
        self._knowledge.remove(number, row)
        self._failures.pop(id_, None)
        self._seen.pop(id_, None)
        self._recoveries.pop(id_, None)
        self._shared_rows = None

    def _call(self, names: tuple[str, ...], row: int) -> None:
        for name in names:
            self._tell_replicas(name, np.append(self._rows_of.get(name, NO_ROWS), row))

    def _call_off(self, names: tuple[str, ...], row: int) -> None:
        for name in names:
            replicas = self._rows_of[name]
            self._tell_replicas(name, replicas[replicas != row])

    def _tell_replicas(self, name: str, rows: NDArray[np.intp]) -> None:
        rows.flags.writeable = False
        self._rows_of = self._rows_of.set(name, rows) if len(rows) else self._rows_of.delete(name)

    def _describe(self, row: int, deployed: Deployed) -> None:
        descriptor, before = deployed.descriptor, self._rows[row]
        if before.called != deployed.called:
            self._call_off(before.called, row)
            self._call(deployed.called, row)
        if before.descriptor.tokens_per_character != descriptor.tokens_per_character:
            self._rate(row, descriptor.tokens_per_character or USUAL_RATES)
        self._rows[row] = deployed
        self._shared_rows = None
        self._descriptors += 1
        self._described[row] = self._descriptors
        self._context_tokens[row] = descriptor.context_tokens
        self._flags["restricted"][row] = "*" not in descriptor.policy.askers
        self._floats["slots"][row] = descriptor.slots
        self._floats["queue"][row] = descriptor.queue
        self._floats["price_in"][row] = descriptor.price_usd_per_1k_in / 1000
        self._floats["price_out"][row] = descriptor.price_usd_per_1k_out / 1000
        self._flags["available"][row] = self._is_available(deployed)

    def _tell_live(self, site: SiteId, node: NodeDescriptor | None) -> None:
        """`node`: that of the site, if it is connected and described."""
        before = self._live.get(site)
        if node is not None:
            self._live = self._live.set(site, node)
        elif before is not None:
            self._live = self._live.delete(site)
        gateway = node is not None and node.gateway is not None
        if gateway != (before is not None and before.gateway is not None):
            others = (name for name in self._gateways if name != site)
            self._gateways = tuple(sorted((*others, site) if gateway else others))

    def _update_available(self, site: SiteId) -> None:
        for id_ in self._ids_at.get(site, ()):
            number = self._row_of[id_]
            self._flags["available"][number] = self._is_available(self._rows[number])

    def _is_available(self, row: Deployed) -> bool:
        return row.site in self._alive and row.descriptor.state is DeploymentState.READY

    def _know(self, row: int) -> None:
        self._flags["degraded"][row] = self._knowledge.know(row, self._rows[row])

    def _deployed(self, node: NodeDescriptor) -> Iterator[Deployed]:
        facility = node.facility
        if facility is None:
            return
        seen: set[str] = set()
        for descriptor in facility.deployments:
            name = descriptor.name
            if name in seen:
                continue
            seen.add(name)
            key = full_name(descriptor.owner, name) if self._scoped else name
            bare = self._scoped and descriptor.name_grant is not None
            yield Deployed(
                site=node.site,
                descriptor=descriptor,
                facility=facility,
                provider=node.owner,
                jurisdiction=node.jurisdiction,
                id=deployment_id(name, node.site),
                key=key,
                called=(key, name) if bare else (key,),
                cordon=None if node.cordon is msgspec.UNSET else node.cordon,
            )


def _row_facts(node: NodeDescriptor) -> object:
    """The part of a descriptor that its rows show."""
    return node.facility, node.owner, node.jurisdiction, node.cordon


def _sensible(rate: DemandRate) -> bool:
    figures = rate.per_s, rate.shed_per_s, rate.tokens_out
    return all(0.0 <= figure < math.inf for figure in figures)


def _name(row: Deployed) -> str:
    return row.name
