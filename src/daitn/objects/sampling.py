"""How exact is what is published of a sample: numbers of records, and shares of them."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["COUNT_STEP", "share_error"]

COUNT_STEP: Final = 5
"""Numbers of records are published rounded down to multiples of this, and measured values in steps
of so many items: one record more, or right, rarely shows."""


def share_error(right: float, items: int) -> float:
    """Standard error of the share that is right, after Agresti and Coull (1998): not 0 even if all
    are right."""
    share = (right + 2) / (items + 4)
    return math.sqrt(share * (1 - share) / (items + 4))
