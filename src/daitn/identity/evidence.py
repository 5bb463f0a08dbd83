"""Removes verifications with invalid signatures from facilities' descriptors."""

from __future__ import annotations

import msgspec
from cachetools import LRUCache

from daitn.identity.signing import check_entry
from daitn.objects.deployments import DeploymentDescriptor
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import Digest
from daitn.objects.lineage import Entry
from daitn.objects.wire import is_whole

__all__ = ["EvidenceFilter"]

_MOST_CHECKED = 100_000


class EvidenceFilter:
    """Checks each entry once, because facilities repeat the same entries in every advert."""

    def __init__(self) -> None:
        self._checked: LRUCache[Digest, bool] = LRUCache(_MOST_CHECKED)

    def well_signed(self, node: NodeDescriptor) -> NodeDescriptor:
        """The descriptor without evidence whose signature does not match."""
        facility = node.facility
        if facility is None or not any(one.evidence for one in facility.deployments):
            return node
        deployments = tuple(self._filtered(one) for one in facility.deployments)
        facility = msgspec.structs.replace(facility, deployments=deployments)
        return msgspec.structs.replace(node, facility=facility)

    def _filtered(self, deployment: DeploymentDescriptor) -> DeploymentDescriptor:
        good = tuple(entry for entry in deployment.evidence if self._good(entry))
        return msgspec.structs.replace(deployment, evidence=good)

    def _good(self, entry: Entry) -> bool:
        known = self._checked.get(entry.digest)
        if known is None:
            known = self._checked[entry.digest] = is_whole(check_entry, entry)
        return known
