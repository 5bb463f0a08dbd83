"""The accuracies of all rows, kept up to date row by row."""

from __future__ import annotations

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from daitn.identity.signing import check_entry
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import Corrupt
from daitn.objects.findings import Finding
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Entry, Verification
from daitn.objects.wire import canonical
from daitn.topology.qrrt.accuracy import METRIC, Estimate, estimate
from daitn.topology.qrrt.columns import Column
from daitn.topology.qrrt.snapshot import Accuracies, Accuracy, Deployed, deployment_id

__all__ = ["Knowledge"]

_MOST_TOPICS = 256
"""Topics that are told apart; more than that is somebody's mistake or malice."""
_MOST_CHECKED = 100_000


class _OnTopic:
    """One topic's accuracies in the making."""

    def __init__(self, rows: int) -> None:
        self.value = Column(np.full(rows, np.nan))
        self.standard_error = Column(np.zeros(rows))
        self.trust = Column(np.zeros(rows, np.int8))
        self.at_s = Column(np.zeros(rows))

    def put(self, row: int, known: Estimate | None) -> None:
        self.value[row] = np.nan if known is None else known.value
        self.standard_error[row] = 0.0 if known is None else known.standard_error
        self.trust[row] = 0 if known is None else known.trust
        self.at_s[row] = 0.0 if known is None else known.at_s

    def moved(self, source: NDArray[np.intp]) -> None:
        rows = len(source)
        self.value.moved(source, np.full(rows, np.nan))
        self.standard_error.moved(source, np.zeros(rows))
        self.trust.moved(source, np.zeros(rows, np.int8))
        self.at_s.moved(source, np.zeros(rows))

    def share(self) -> Accuracy:
        return Accuracy(
            self.value.share(), self.standard_error.share(), self.trust.share(), self.at_s.share()
        )


class Knowledge:
    """Findings and believed evidence, and what follows from them for each row and topic."""

    def __init__(self) -> None:
        self.anew = False
        """Set where a verification unit became known: evidence may have become believable."""
        self._rows = 0
        self._topics: dict[str, _OnTopic] = {}
        self._findings: dict[str, dict[tuple[SiteId, str], Finding]] = {}
        self._units: dict[SiteId, str] = {}
        self._checked: dict[bytes, bool] = {}
        self._shared: Accuracies | None = None

    def share(self) -> Accuracies:
        """What is known now, which does not change."""
        if self._shared is None:
            self._shared = Accuracies({name: t.share() for name, t in self._topics.items()})
        return self._shared

    def described(self, node: NodeDescriptor) -> None:
        """Learn whether the node is a verification unit, and its key."""
        if Role.VERIFIER in node.roles and self._units.get(node.site) != node.public_key:
            self._units[node.site] = node.public_key
            self.anew = True

    def found(self, finding: Finding) -> None:
        """Keep the unit's newest finding on the deployment and topic."""
        about = self._findings.setdefault(deployment_id(finding.deployment, finding.site), {})
        key = finding.verifier, finding.topic
        known = about.get(key)
        if known is None or finding.at_s >= known.at_s:
            about[key] = finding

    def moved(self, source: NDArray[np.intp]) -> None:
        """The rows are others now, see `Column.moved`."""
        self._rows = len(source)
        self._shared = None
        for topic in self._topics.values():
            topic.moved(source)

    def know(self, row: int, deployed: Deployed) -> bool:
        """Work out anew what is known of a row. Says whether it is degraded."""
        self._shared = None
        manifest = deployed.descriptor.manifest
        findings = [
            finding
            for finding in self._findings.get(deployed.id, {}).values()
            if finding.manifest == manifest and finding.metric == METRIC
        ]
        evidence = [
            entry.fact
            for entry in deployed.descriptor.evidence
            if isinstance(entry.fact, Verification)
            and entry.fact.metric == METRIC
            and entry.fact.model == manifest
            and self._believed(entry)
        ]
        claimed = deployed.descriptor.claimed
        named = {f.topic for f in findings} | {v.topic for v in evidence} | claimed.keys()
        for name in sorted(named - self._topics.keys())[: _MOST_TOPICS - len(self._topics)]:
            self._topics[name] = _OnTopic(self._rows)
        for name, topic in self._topics.items():
            known = estimate(
                claimed.get(name),
                [v for v in evidence if v.topic == name],
                [f for f in findings if f.topic == name],
            )
            topic.put(row, known)
        return any(finding.degraded for finding in findings)

    def _believed(self, entry: Entry) -> bool:
        """Whether a verification unit of the network signed it. Each entry is checked once."""
        if self._units.get(entry.fact.site) != entry.public_key:
            return False
        digest = blake3(canonical(entry)).digest()
        if digest not in self._checked:
            if len(self._checked) >= _MOST_CHECKED:
                self._checked.clear()
            try:
                check_entry(entry)
                self._checked[digest] = True
            except Corrupt:
                self._checked[digest] = False
        return self._checked[digest]
