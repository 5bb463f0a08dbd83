"""Pagination. A cursor names the last item of a page by its key, never by its position, so that
added or removed items shift no others."""

from __future__ import annotations

import base64
import bisect
from collections.abc import Callable, Sequence
from typing import Any

from daitn.oam.api.problems import HttpProblem

__all__ = ["bad_cursor", "cursor_of", "page_of", "read_cursor"]

_MOST_TEXT = 1024


def cursor_of(key: str) -> str:
    """The cursor that continues after the item with this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """The key in a cursor. Raises `HttpProblem` (400)."""
    try:
        if len(cursor) > _MOST_TEXT:
            raise ValueError
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        raise bad_cursor() from None


def bad_cursor() -> HttpProblem:
    """For a cursor that no page returned."""
    return HttpProblem(
        400,
        "InvalidInput",
        "it is not a cursor",
        field="cursor",
        fix="use `next` of the previous page unchanged",
    )


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
