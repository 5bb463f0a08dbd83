"""What a gateway needs of the live topology for inference."""

from __future__ import annotations

from typing import Protocol

from daitn.objects.identifiers import SiteId
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.snapshot import Paths, Qrrt

__all__ = ["Topology"]


class Topology(Protocol):
    """A QRRT that is kept up to date, seen from the gateway's site."""

    def snapshot(self) -> Qrrt:
        """The topology now."""
        ...

    def paths(self, snapshot: Qrrt) -> Paths:
        """The best paths from here to the snapshot's rows."""
        ...

    def observe(self, site: SiteId, name: str, seen: Observation) -> None:
        """This gateway saw how a deployment served a query."""
        ...

    def unreachable(self, site: SiteId) -> None:
        """This gateway could not connect to a site's door."""
        ...
