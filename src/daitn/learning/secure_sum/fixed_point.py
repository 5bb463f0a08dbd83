"""Fixed-point numbers: reals as integers modulo 2^64, which are added exactly."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from daitn.objects.errors import InvalidInput

__all__ = ["FixedPoint", "Words"]

Words = NDArray[np.uint64]
_SIGNED_BITS = 63


class FixedPoint:
    """Fixed-point numbers up to `most`, as fine as a sum over this many `members` allows."""

    def __init__(self, most: float, members: int) -> None:
        if not (0.0 < most < math.inf and members >= 1):
            raise InvalidInput(
                f"a sum of {members} numbers up to {most:g} has no fixed point",
                field="most",
                fix="give a positive, finite bound, and one member at least",
            )
        self._most = most
        # Rounding adds half a step to each number.
        self._scale = 2.0 ** (_SIGNED_BITS - 1 - math.ceil(math.log2(most * members)))
        self._members = members

    @property
    def step(self) -> float:
        """Distance of neighbouring numbers: a sum has an error of at most half of it per member."""
        return 1.0 / self._scale

    def within(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raises `InvalidInput` for a number beyond the bound, or NaN."""
        if not bool((np.abs(numbers) <= self._most).all()):
            raise InvalidInput(
                f"not all numbers are within {self._most:g}",
                field="most",
                fix="clip them, or agree on a larger bound",
            )
        return numbers

    def words(self, numbers: NDArray[np.float64]) -> Words:
        """Raises like `within`."""
        self.within(numbers)
        return np.rint(numbers * self._scale).astype(np.int64).view(np.uint64)

    def numbers(self, total: Words) -> NDArray[np.float64]:
        """The numbers of a sum."""
        return total.view(np.int64).astype(np.float64) / self._scale
