"""Where two JSON values differ."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["Difference", "difference"]

_SHOWN = 80


class Difference(NamedTuple):
    """The first difference between what is stated and what is expected."""

    path: str
    """For instance `metadata.component.name`, or `components[2]`."""
    stated: str
    """In JSON, shortened; empty if it is missing."""
    expected: str
    """Likewise; empty if there should be nothing."""


def difference(
    stated: Any, expected: Any, path: str = "", *, whole: bool = True
) -> Difference | None:
    """The first difference; none if there is none. Unless `whole`, what is expected may be left
    out, and only what is stated is compared."""
    if isinstance(stated, dict) and isinstance(expected, dict):
        return _in_object(stated, expected, path, whole)
    if isinstance(stated, list) and isinstance(expected, list):
        return _in_list(stated, expected, path, whole)
    if isinstance(stated, bool) == isinstance(expected, bool) and stated == expected:
        return None
    return Difference(path or "all of it", _shown(stated), _shown(expected))


def _in_object(
    stated: dict[str, Any], expected: dict[str, Any], path: str, whole: bool
) -> Difference | None:
    for name in stated | expected:
        at = f"{path}.{name}" if path else name
        at = at if at.isprintable() else ascii(at)
        if name not in expected:
            return Difference(at, _shown(stated[name]), "")
        if name in stated:
            found = difference(stated[name], expected[name], at, whole=whole)
        else:
            found = Difference(at, "", _shown(expected[name])) if whole else None
        if found:
            return found
    return None


def _in_list(stated: list[Any], expected: list[Any], path: str, whole: bool) -> Difference | None:
    for number, (one, other) in enumerate(zip(stated, expected, strict=False)):
        if found := difference(one, other, f"{path}[{number}]", whole=whole):
            return found
    if len(stated) == len(expected):
        return None
    number = min(len(stated), len(expected))
    return Difference(
        f"{path}[{number}]",
        _shown(stated[number]) if len(stated) > number else "",
        _shown(expected[number]) if len(expected) > number else "",
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
