"""The live inference topology, as used by a gateway."""

from __future__ import annotations

from typing import Protocol

from daitn.objects.identifiers import SiteId
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.snapshot import Paths, Qrrt

__all__ = ["Topology"]


class Topology(Protocol):
    """An up-to-date QRRT, as seen from the gateway's site."""

    def snapshot(self) -> Qrrt:
        """The current topology."""
        ...

    def paths(self, snapshot: Qrrt) -> Paths:
        """The best paths from here to the snapshot's rows."""
        ...

    def observe(self, site: SiteId, name: str, observation: Observation) -> None:
        """Record how a deployment served a query of this gateway."""
        ...

    def unreachable(self, site: SiteId) -> None:
        """Record that this gateway could not connect to a site."""
        ...
