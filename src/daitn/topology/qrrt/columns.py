"""Columns that grow row by row, and whose shared values never change."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Column", "changed"]

Scalar = TypeVar("Scalar", bound=np.generic)

_FIRST_ROWS = 16
"""Capacity of a new column. It grows by an eighth when full, so a row costs constant time on
average, and snapshots hold little more than they show."""


class Column(Generic[Scalar]):
    """One value per row.

    `share` hands out a view. Writing to a row that a view shows copies the column first; adding
    rows behind those that views show copies nothing.
    """

    __slots__ = ("_array", "_fresh", "_rows", "_shown", "_view")

    def __init__(self, dtype: DTypeLike, fresh: float, rows: int = 0) -> None:
        """`rows` rows. Each, like every later one, begins with the value `fresh`."""
        self._fresh = fresh
        self._array: NDArray[Scalar] = np.full(max(_FIRST_ROWS, rows), fresh, dtype)
        self._rows = rows
        self._shown = 0
        """Rows of the array that some view may show."""
        self._view: NDArray[Scalar] | None = None

    def __getitem__(self, row: int) -> Scalar:
        value: Scalar = self._array[row]
        return value

    def __setitem__(self, row: int, value: float | np.generic) -> None:
        if value == self._array[row]:
            return  # What is derived from the view holds on.
        if row < self._shown:
            self._copy(len(self._array))
        self._array[row] = value

    def add(self, rows: int) -> None:
        """Append rows."""
        first, end = self._rows, self._rows + rows
        if end > len(self._array):
            self._copy(end + end // 8 + _FIRST_ROWS)
        elif first < self._shown:
            self._copy(len(self._array))
        self._array[first:end] = self._fresh
        self._rows, self._view = end, None

    def remove(self, row: int) -> None:
        """Remove a row; the last one takes its number."""
        last = self._rows - 1
        if row != last:
            self[row] = self._array[last]
        self._rows, self._view = last, None

    def share(self) -> NDArray[Scalar]:
        """The current values, read-only."""
        if self._view is None:
            self._view = self._array[: self._rows]
            self._view.flags.writeable = False
            self._shown = max(self._shown, self._rows)
        return self._view

    def _copy(self, room: int) -> None:
        if room == len(self._array):
            array = self._array.copy()
        else:
            array = np.empty(room, self._array.dtype)
            array[: self._rows] = self._array[: self._rows]
        self._array, self._shown, self._view = array, 0, None


def changed(before: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.intp]:
    """The rows that are new or whose `described` changed."""
    both = min(len(before), len(now))
    (differ,) = np.nonzero(before[:both] != now[:both])
    return np.concatenate((differ, np.arange(both, len(now))))
