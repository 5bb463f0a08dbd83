"""Bounded numbers and texts that several messages use."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.identifiers import Word

__all__ = ["Count", "Price", "Share", "Words"]

Count = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Price = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
"""In USD."""
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=256)]
