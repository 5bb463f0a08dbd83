"""Tolerant reading of servers' values, whatever their type."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["Json", "dicts", "index_of", "number_in", "text_or_empty", "without"]

Json = dict[str, Any]


def dicts(values: Any) -> list[Json]:
    """The objects of what should be a list of them."""
    return (
        [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    )


def index_of(choice: Json, position: int) -> int:
    """The number of a choice; if it has none, its position."""
    index = number_in(choice.get("index"))
    return position if index is None else index


def without(fields: Json, *names: str) -> Json:
    """The fields but some."""
    return {name: value for name, value in fields.items() if name not in names}


def number_in(value: Any) -> int | None:
    """A number that may be a text or a float."""
    if type(value) is int:
        return value if 0 <= value < 1 << 31 else None
    if isinstance(value, float) and math.isfinite(value) and value >= 0:
        return number_in(int(value))
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return None


def text_or_empty(value: Any) -> str:
    """The value if it is a text, else empty."""
    return value if isinstance(value, str) else ""
