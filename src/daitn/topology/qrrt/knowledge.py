"""The accuracies of all rows, updated row by row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from immutables import Map

from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.findings import Finding
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Entry, Verification
from daitn.objects.queries import Trust
from daitn.topology.qrrt.accuracy import METRIC, TRUSTED, AccuracyEstimate, estimate
from daitn.topology.qrrt.columns import Column
from daitn.topology.qrrt.findings import Findings, verdict
from daitn.topology.qrrt.snapshot import Accuracies, Accuracy, Deployed, Verdict

__all__ = ["MOST_ITEMS", "MOST_TOPICS", "Knowledge"]

MOST_TOPICS = 256
"""Maximum number of distinguished topics; more are a mistake or malice."""
MOST_ITEMS = 1_000_000
"""Maximum number of items of a measurement, likewise: ten times the largest window."""


class _OnTopic:
    """The accuracies of one topic, under construction."""

    def __init__(self, rows: int) -> None:
        self.value = Column[np.float64](np.float64, np.nan, rows)
        self.standard_error = Column[np.float64](np.float64, 0.0, rows)
        self.trust = Column[np.int8](np.int8, 0, rows)
        self.at_s = Column[np.float64](np.float64, 0.0, rows)
        self._columns: tuple[Column[Any], ...] = (
            self.value,
            self.standard_error,
            self.trust,
            self.at_s,
        )
        self._rows_of = Counter[int]()
        """Number of rows, by trust."""

    def put(self, row: int, known: AccuracyEstimate | None) -> None:
        self._rows_of[int(self.trust[row])] -= 1
        self.value[row] = np.nan if known is None else known.value
        self.standard_error[row] = 0.0 if known is None else known.standard_error
        self.trust[row] = 0 if known is None else known.trust
        self.at_s[row] = 0.0 if known is None else known.at_s
        self._rows_of[int(self.trust[row])] += 1

    def best(self) -> int:
        """The highest trust in any row."""
        return max((trust for trust in TRUSTED.values() if self._rows_of[trust] > 0), default=0)

    def add(self, rows: int) -> None:
        for column in self._columns:
            column.add(rows)

    def remove(self, row: int) -> None:
        self.put(row, None)
        for column in self._columns:
            column.remove(row)

    def share(self) -> Accuracy:
        return Accuracy(
            self.value.share(), self.standard_error.share(), self.trust.share(), self.at_s.share()
        )


class Knowledge:
    """Findings and believed evidence, and the resulting accuracies for each row and topic."""

    def __init__(self) -> None:
        self._rows = 0
        self._topics: dict[str, _OnTopic] = {}
        self._estimated: dict[str, frozenset[str]] = {}
        """Topics for which an accuracy was computed, by deployment id."""
        self._findings = Findings()
        self._units: dict[SiteId, str] = {}
        """The keys of verifiers."""
        self._owners: dict[SiteId, str] = {}
        """Who owns each described node."""
        self.verdicts: Map[str, Verdict] = Map()
        """By deployment id, of those with findings."""
        self._shared: Accuracies | None = None

    def share(self) -> Accuracies:
        """The current knowledge, as an immutable value."""
        if self._shared is None:
            self._topics = {
                name: topic for name, topic in sorted(self._topics.items()) if topic.best() > 0
            }
            self._shared = Accuracies({name: t.share() for name, t in self._topics.items()})
        return self._shared

    def described(self, node: NodeDescriptor) -> bool:
        """Learn whether the node is a verifier, its key and owner. Returns whether that may change
        what its evidence and findings are worth."""
        site, owner = node.site, node.owner
        key = node.public_key if Role.VERIFIER in node.roles else None
        was_key, was_owner = self._units.pop(site, None), self._owners.get(site)
        self._owners[site] = owner
        if key is not None:
            self._units[site] = key
        speaks = key is not None or bool(self._findings.by(site))
        return was_key != key or (was_owner != owner and speaks)

    def measured_by(self, unit: SiteId) -> tuple[str, ...]:
        """Returns the ids of the deployments on which a verifier has findings."""
        return self._findings.by(unit)

    def found(self, finding: Finding) -> tuple[str, ...]:
        """Store a finding. Returns the ids of the deployments that it changes."""
        return self._findings.keep(finding) if _sensible(finding) else ()

    def forgotten(self, unit: SiteId) -> tuple[str, ...]:
        """A node is gone for good. Returns ids like `found`."""
        if unit not in self._units:
            self._owners.pop(unit, None)
        return self._findings.unmark(unit)

    def removed(self, unit: SiteId) -> tuple[str, ...]:
        """A verifier is no longer a member: none of its measurements count. Returns ids like
        `found`."""
        self._units.pop(unit, None)
        self._owners.pop(unit, None)
        return self._findings.remove(unit)

    def add(self, rows: int) -> None:
        """Append rows without any knowledge."""
        self._rows += rows
        self._shared = None
        for topic in self._topics.values():
            topic.add(rows)

    def remove(self, row: int, deployed: Deployed) -> None:
        """Remove a row; the last one takes its number."""
        self._rows -= 1
        self._shared = None
        self._estimated.pop(deployed.id, None)
        self._judge(deployed.id, None)
        for topic in self._topics.values():
            topic.remove(row)

    def know(self, row: int, deployed: Deployed) -> bool:
        """Recompute the knowledge about a row. Returns whether it is degraded."""
        self._shared = None
        manifest = deployed.descriptor.manifest
        told = [
            finding
            for finding in self._findings.on(deployed.id)
            if finding.metric == METRIC and self._may_measure(finding.verifier)
        ]
        findings = [finding for finding in told if finding.manifest == manifest]
        evidence = list(self._evidence(deployed))
        claimed = deployed.descriptor.claimed
        measured = {f.topic for f in findings} | {v.topic for v in evidence}
        named = frozenset(measured | claimed.keys()) - {""}
        for name in sorted(measured - {""}):
            self._open(name, measured=True)
        for name in sorted(named - measured):
            self._open(name, measured=False)
        contradicted = set[SiteId]()
        for name in named | self._estimated.get(deployed.id, frozenset()):
            topic = self._topics.get(name)
            if topic is not None:
                known = estimate(
                    claimed.get(name),
                    [v for v in evidence if v.topic == name],
                    [f for f in findings if f.topic == name],
                    self._owners,
                )
                topic.put(row, known)
                contradicted.update(known.contradicted if known else ())
        self._estimated[deployed.id] = named
        judged = verdict(told, manifest, contradicted, self._owners)
        self._judge(deployed.id, judged if told else None)
        return judged.degraded

    def _judge(self, id_: str, judged: Verdict | None) -> None:
        if judged is not None:
            self.verdicts = self.verdicts.set(id_, judged)
        elif id_ in self.verdicts:
            self.verdicts = self.verdicts.delete(id_)

    def _open(self, name: str, *, measured: bool) -> None:
        """Add a topic if there is room; a measured one may replace a claimed one."""
        if name in self._topics:
            return
        if len(self._topics) >= MOST_TOPICS:
            least = TRUSTED[Trust.CLAIMED] if measured else 0
            spare = next((n for n, t in self._topics.items() if t.best() <= least), None)
            if spare is None:
                return
            del self._topics[spare]
        self._topics[name] = _OnTopic(self._rows)

    def _evidence(self, deployed: Deployed) -> Iterator[Verification]:
        for entry in deployed.descriptor.evidence:
            fact = entry.fact
            if (
                isinstance(fact, Verification)
                and fact.metric == METRIC
                and fact.model == deployed.descriptor.manifest
                and _sensible(fact)
                and self._believed(entry)
            ):
                yield fact

    def _may_measure(self, unit: SiteId) -> bool:
        """Whether it is a verifier, as far as it has described itself."""
        return unit in self._units or unit not in self._owners

    def _believed(self, entry: Entry) -> bool:
        """Whether a verifier of this network signed it. The caller that accepts descriptors has
        checked their signatures."""
        return self._units.get(entry.fact.site) == entry.public_key


def _sensible(measured: Finding | Verification) -> bool:
    """Whether it can be a share of correctly answered test items."""
    return (
        0.0 <= measured.value <= 1.0
        and 0 < measured.items <= MOST_ITEMS
        and math.isfinite(measured.at_s)
    )
