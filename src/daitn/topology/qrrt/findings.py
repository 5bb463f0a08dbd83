"""Results of verifiers: each verifier's latest on each deployment and topic.

Findings may arrive before their deployment does, and outlive it, because it may come back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

import msgspec

from daitn.objects.findings import Finding
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.quorum import voice_of
from daitn.topology.qrrt.snapshot import Verdict, deployment_id

__all__ = ["MOST_FINDINGS", "RECENT_S", "Findings", "verdict"]

MOST_FINDINGS = 100_000
"""Limit per unit: one finding for each deployment of the largest network on which decisions are
measured. A unit that exceeds it loses its own oldest findings, never those of others."""
RECENT_S = 3600.0
"""A verifier has a voice in whether a deployment stays in service for this long after it measured
it: one that is gone, or no longer tests it, outvotes nobody."""


class Findings:
    """Findings by deployment, whether the deployment is known or not."""

    def __init__(self) -> None:
        self._on: dict[str, dict[tuple[SiteId, str], Finding]] = {}
        self._of: dict[SiteId, OrderedDict[tuple[str, str], None]] = {}
        """Per unit, the deployments and topics with findings, latest last."""

    def on(self, id_: str) -> Collection[Finding]:
        """The findings on a deployment."""
        return self._on.get(id_, {}).values()

    def keep(self, finding: Finding) -> tuple[str, ...]:
        """Store a finding unless the unit has a later one.

        Returns the ids of the deployments whose findings changed.
        """
        id_ = deployment_id(finding.deployment, finding.site)
        about = self._on.setdefault(id_, {})
        key = finding.verifier, finding.topic
        known = about.get(key)
        if known is not None and _rank(finding) <= _rank(known):
            return ()
        about[key] = finding
        of = self._of.setdefault(finding.verifier, OrderedDict())
        of[id_, finding.topic] = None
        of.move_to_end((id_, finding.topic))
        if len(of) <= MOST_FINDINGS:
            return (id_,)
        (old_id, old_topic), _ = of.popitem(last=False)
        self._drop(old_id, finding.verifier, old_topic)
        return id_, old_id

    def unmark(self, unit: SiteId) -> tuple[str, ...]:
        """The unit left for good: clear its degraded marks, since it will never report a recovery.

        Its figures stay. Returns ids as `keep` does.
        """
        changed = []
        for id_, topic in self._of.get(unit, ()):
            finding = self._on[id_][unit, topic]
            if finding.degraded:
                self._on[id_][unit, topic] = msgspec.structs.replace(
                    finding, degraded=False, two_faced=msgspec.UNSET
                )
                changed.append(id_)
        return tuple(changed)

    def by(self, unit: SiteId) -> tuple[str, ...]:
        """The ids of the deployments on which a unit has findings."""
        return tuple(dict.fromkeys(id_ for id_, _ in self._of.get(unit, ())))

    def remove(self, unit: SiteId) -> tuple[str, ...]:
        """Drop the findings of a unit that is no longer a member. Returns ids like `keep`."""
        ids = self.by(unit)
        for id_, topic in self._of.pop(unit, ()):
            self._drop(id_, unit, topic)
        return ids

    def _drop(self, id_: str, verifier: SiteId, topic: str) -> None:
        del self._on[id_][verifier, topic]
        if not self._on[id_]:
            del self._on[id_]


def _rank(finding: Finding) -> tuple[float, bool, bool, float, int]:
    """Of two findings at the same instant, the worse one counts, regardless of their order."""
    return finding.at_s, finding.degraded, finding.two_faced is True, -finding.value, -finding.items


def verdict(
    findings: Iterable[Finding],
    manifest: Digest | None,
    contradicted: Iterable[SiteId],
    owners: Mapping[SiteId, str],
) -> Verdict:
    """What the findings on a deployment say beside its accuracy. That it is two-faced counts
    whatever it serves now; all else only of the weights that it says it serves. `owners`: as in
    `accuracy.estimate`."""
    counting = [
        finding for finding in findings if finding.manifest == manifest or finding.two_faced is True
    ]
    since_s = max((finding.at_s for finding in counting), default=0.0) - RECENT_S
    recent = [finding for finding in counting if finding.at_s >= since_s]

    def those(saying: Iterable[Finding]) -> tuple[SiteId, ...]:
        return tuple(sorted({finding.verifier for finding in saying}))

    measured_by = those(recent)
    degraded_by = those(f for f in recent if f.degraded or f.two_faced is True)
    two_faced_by = those(f for f in recent if f.two_faced is True)
    return Verdict(
        measured_by=measured_by,
        degraded_by=degraded_by,
        two_faced_by=two_faced_by,
        unanswered_by=those(f for f in recent if f.unanswered is True),
        contradicted=tuple(sorted(set(contradicted))),
        degraded=_most(degraded_by, measured_by, owners),
        two_faced=_most(two_faced_by, measured_by, owners),
    )


def _most(saying: tuple[SiteId, ...], of: tuple[SiteId, ...], owners: Mapping[SiteId, str]) -> bool:
    """Whether most owners say so, each by most of its verifiers."""
    voices: dict[str, list[bool]] = {}
    for site in of:
        voices.setdefault(voice_of(site, owners), []).append(site in saying)
    return 2 * sum(2 * sum(own) > len(own) for own in voices.values()) > len(voices)
