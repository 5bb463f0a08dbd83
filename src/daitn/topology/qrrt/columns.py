"""Columns that are written in place until a snapshot shares them."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Column"]

Scalar = TypeVar("Scalar", bound=np.generic)


class Column(Generic[Scalar]):
    """One value per row. An array that `share` handed out never changes: the next write copies."""

    __slots__ = ("_array", "_shared")

    def __init__(self, array: NDArray[Scalar]) -> None:
        self._array = array
        self._shared = False

    def __getitem__(self, row: int) -> Scalar:
        value: Scalar = self._array[row]
        return value

    def __setitem__(self, row: int, value: float) -> None:
        if self._shared:
            self._array = self._array.copy()
            self._shared = False
        self._array[row] = value

    def view(self) -> NDArray[Scalar]:
        """The current values, valid only until the next write."""
        return self._array

    def share(self) -> NDArray[Scalar]:
        """The current values, read-only."""
        if not self._shared:
            self._array.flags.writeable = False
            self._shared = True
        return self._array

    def moved(self, source: NDArray[np.intp], fresh: NDArray[Scalar]) -> None:
        """Rearrange the rows: row i gets the value of `source[i]`, or `fresh[i]` if that is -1."""
        kept = source >= 0
        array = fresh.copy()
        array[kept] = self._array[source[kept]]
        self._array, self._shared = array, False
