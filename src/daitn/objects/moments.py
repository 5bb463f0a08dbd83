"""Times that members sign."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["Moment"]

Moment = Annotated[float, msgspec.Meta(ge=0.0, le=1e13)]
"""Seconds since the epoch. NaN, infinity and times before the epoch are not decoded: their
comparison would be up to their author."""
