"""Caches results derived from parts of a snapshot, for as long as those parts stay the same.

Snapshots share what did not change between them, so identity shows that a part is unchanged. A
cache names the parts it depends on; it holds nothing of their earlier versions.
"""

from __future__ import annotations

from collections.abc import Hashable
from operator import is_
from typing import Any, Generic, TypeVar

__all__ = ["PartsCache", "cached"]

Value = TypeVar("Value")


class PartsCache(Generic[Value]):
    """A bounded cache by kind of query; the oldest entry makes room."""

    __slots__ = ("_most", "_values", "parts")

    def __init__(self, parts: tuple[object, ...], most: int) -> None:
        self.parts = parts
        """The parts from which all values were derived."""
        self._most = most
        self._values: dict[Hashable, Value] = {}

    def get(self, kind: Hashable) -> Value | None:
        return self._values.get(kind)

    def put(self, kind: Hashable, value: Value) -> Value:
        """Store a value and return it."""
        if len(self._values) >= self._most and kind not in self._values:
            del self._values[next(iter(self._values))]
        self._values[kind] = value
        return value


def cached(
    cache: dict[Any, Any], what: str, parts: tuple[object, ...], most: int
) -> PartsCache[Any]:
    """The cache with this name, emptied if one of its parts changed."""
    kept: PartsCache[Any] | None = cache.get(what)
    if kept is None or not all(map(is_, kept.parts, parts)):
        kept = cache[what] = PartsCache(parts, most)
    return kept
