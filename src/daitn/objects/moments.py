"""Times that members sign, and how documents for machines write them."""

from __future__ import annotations

import datetime
from typing import Annotated, Final

import msgspec

__all__ = ["DAY_S", "Moment", "timestamp"]

DAY_S: Final = 86400.0

Moment = Annotated[float, msgspec.Meta(ge=0.0, le=1e13)]
"""Seconds since the epoch. NaN, infinity and times before the epoch are not decoded: their
comparison would be up to their author."""


def timestamp(at_s: float) -> str:
    """A time in UTC, ISO 8601. Raises `ValueError`, `OverflowError` or `OSError` for one that no
    calendar has."""
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat()
