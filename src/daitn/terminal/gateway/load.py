"""What one gateway has under way at each deployment, known at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from daitn.topology.qrrt.snapshot import Floats, Qrrt

__all__ = ["Load"]


class Load:
    """Queries under way per deployment id, and the same as a column of a snapshot's rows."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._row_of: Mapping[str, int] = {}
        self._column: Floats = np.zeros(0)

    def of(self, snapshot: Qrrt) -> Floats:
        """Per row of the snapshot; a copy."""
        if snapshot.row_of is not self._row_of:
            self._row_of = snapshot.row_of
            self._column = np.zeros(len(snapshot.rows))
            for id_, count in self._counts.items():
                self._put(id_, count)
        return self._column.copy()

    def begin(self, id_: str) -> None:
        """A query goes to the deployment."""
        count = self._counts[id_] = self._counts.get(id_, 0) + 1
        self._put(id_, count)

    def end(self, id_: str) -> None:
        """It is done there."""
        count = self._counts[id_] - 1
        if count:
            self._counts[id_] = count
        else:
            del self._counts[id_]
        self._put(id_, count)

    def _put(self, id_: str, count: int) -> None:
        row = self._row_of.get(id_)
        if row is not None:
            self._column[row] = count
