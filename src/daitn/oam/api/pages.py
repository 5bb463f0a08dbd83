"""Long lists in parts. A cursor names the last item of a part by its key, never by its place: what
comes or goes in between moves no other item."""

from __future__ import annotations

import base64
import bisect
from collections.abc import Callable, Sequence
from typing import Any

from daitn.oam.api.problems import HttpProblem

__all__ = ["cursor_of", "page_of", "read_cursor"]

_MOST_TEXT = 1024


def cursor_of(key: str) -> str:
    """The cursor that goes on after the item with this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """The key in a cursor. Raises `HttpProblem` (400)."""
    try:
        if len(cursor) > _MOST_TEXT:
            raise ValueError
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        raise HttpProblem(
            400,
            "InvalidInput",
            "it is no cursor",
            field="cursor",
            fix="take `next` of the part before as it is",
        ) from None


def page_of(
    items: Sequence[Any], key: Callable[[Any], str], limit: int, cursor: str | None
) -> dict[str, Any]:
    """A part of a list that is sorted by `key`: see `Page`."""
    first = 0
    if cursor:
        first = bisect.bisect_right(items, read_cursor(cursor), key=key)
    part = items[first : first + limit]
    more = first + limit < len(items)
    return {"items": part, "next": cursor_of(key(part[-1])) if more else None}
