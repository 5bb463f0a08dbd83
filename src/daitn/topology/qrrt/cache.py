"""What was worked out of parts of a snapshot, kept while these parts are the same.

Snapshots share what did not change between them, so that the same object says the same. Whoever
keeps something of parts that change says which; of their earlier versions nothing is held.
"""

from __future__ import annotations

from collections.abc import Hashable
from operator import is_
from typing import Any, Generic, TypeVar

__all__ = ["Kept", "cached"]

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """By kind of query, of bounded number: the oldest makes room."""

    __slots__ = ("_most", "_values", "parts")

    def __init__(self, parts: tuple[object, ...], most: int) -> None:
        self.parts = parts
        """What all of it was worked out of."""
        self._most = most
        self._values: dict[Hashable, Value] = {}

    def get(self, kind: Hashable) -> Value | None:
        return self._values.get(kind)

    def put(self, kind: Hashable, value: Value) -> Value:
        """Keep it; gives it back."""
        if len(self._values) >= self._most:
            del self._values[next(iter(self._values))]
        self._values[kind] = value
        return value


def cached(memo: dict[Any, Any], what: str, parts: tuple[object, ...], most: int) -> Kept[Any]:
    """What is kept under a name; nothing yet where one of the parts is another than last time."""
    kept: Kept[Any] | None = memo.get(what)
    if kept is None or not all(map(is_, kept.parts, parts)):
        kept = memo[what] = Kept(parts, most)
    return kept
