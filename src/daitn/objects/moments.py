"""Times that members sign."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["Moment"]

Moment = Annotated[float, msgspec.Meta(ge=0.0, le=1e13)]
"""Seconds since the epoch. One that is no number, endless or before the epoch is not decoded: it
would compare as its author likes."""
