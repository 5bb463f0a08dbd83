"""Queries in flight at each deployment, as one gateway estimates them.

Facilities report late, but the gateway knows at once which queries it started and finished since.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from daitn.topology.arrays import Floats
from daitn.topology.qrrt.snapshot import Qrrt

__all__ = ["GatewayLoad"]


class GatewayLoad:
    """This gateway's queries in flight per deployment id, and everyone's per row."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._row_of: Mapping[str, int] = {}
        self._own: Floats = np.zeros(0)
        self._own_then: Floats = np.zeros(0)
        """This gateway's own count at the facility's last report."""
        self._reported_at_s: Floats = np.zeros(0)

    def of(self, snapshot: Qrrt) -> Floats:
        """Estimate per row of the snapshot; a copy.

        Other gateways' queries are the reported number less this gateway's own at that time; its
        own are counted as of now.
        """
        columns = snapshot.columns
        if snapshot.row_of is not self._row_of:
            self._rearrange(snapshot)
        elif columns.reported_at_s is not self._reported_at_s:
            fresh = columns.reported_at_s != self._reported_at_s
            self._own_then[fresh] = self._own[fresh]
        self._reported_at_s = columns.reported_at_s
        others: Floats = np.maximum(columns.in_flight - self._own_then, 0.0)
        return others + self._own

    def begin(self, id_: str) -> None:
        """Count a query sent to the deployment."""
        count = self._counts[id_] = self._counts.get(id_, 0) + 1
        self._put(id_, count)

    def end(self, id_: str) -> None:
        """Count a query finished there."""
        count = self._counts[id_] - 1
        if count:
            self._counts[id_] = count
        else:
            del self._counts[id_]
        self._put(id_, count)

    def _rearrange(self, snapshot: Qrrt) -> None:
        self._row_of = snapshot.row_of
        self._own = np.zeros(len(snapshot.rows))
        for id_, count in self._counts.items():
            self._put(id_, count)
        self._own_then = self._own.copy()

    def _put(self, id_: str, count: int) -> None:
        row = self._row_of.get(id_)
        if row is not None:
            self._own[row] = count
