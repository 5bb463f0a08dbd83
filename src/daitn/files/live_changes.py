"""Which changes of a file a running process applies, and which wait for its restart."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

__all__ = ["Changes", "taken_over"]

T = TypeVar("T")

_POSITION = re.compile(r"\[\d+\]")


class Changes(NamedTuple):
    """Fields that differ, by their paths, for instance `datasets[0].policy.hours`."""

    live: tuple[str, ...]
    """Those that take effect at once."""
    waiting: tuple[str, ...]
    """Those that take effect at the next start."""


def taken_over(
    running: T, stated: T, live: Collection[str], notes: Collection[str] = ()
) -> tuple[T, Changes]:
    """The settings of a process after its file has changed, and the changes.

    `live`: the paths of fields that may change meanwhile, with `[]` for any position: with them all
    that is below. Where a list gets longer or shorter, it waits as a whole, unless it is live.
    `notes`: fields that the file does not have; they do not change it.
    """
    before, after = msgspec.to_builtins(running), msgspec.to_builtins(stated)
    changed = tuple(one for one in _changed(before, after, "", live) if not _is_live(one, notes))
    waiting = tuple(path for path in changed if not _is_live(path, live))
    merged = _merged(before, after, "", live) if waiting else after
    changes = Changes(tuple(path for path in changed if path not in waiting), waiting)
    return msgspec.convert(merged, type(running)), changes


def _is_live(path: str, live: Collection[str]) -> bool:
    path = _POSITION.sub("[]", path)
    return any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in live)


def _changed(before: Any, after: Any, path: str, live: Collection[str]) -> Iterator[str]:
    if before == after:
        return
    pairs = None if _is_live(path, live) else _parts(before, after, path)
    if pairs is None:
        yield path
        return
    for name, one, other in pairs:
        yield from _changed(one, other, name, live)


def _merged(before: Any, after: Any, path: str, live: Collection[str]) -> Any:
    if _is_live(path, live):
        return after
    pairs = _parts(before, after, path)
    if pairs is None:
        return before
    values = [_merged(one, other, name, live) for name, one, other in pairs]
    return dict(zip(before, values, strict=True)) if isinstance(before, dict) else values


def _parts(before: Any, after: Any, path: str) -> list[tuple[str, Any, Any]] | None:
    """The parts of two values of one type, with their paths; none if the types differ."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        dot = "." if path else ""
        return [(f"{path}{dot}{name}", before[name], after[name]) for name in before]
    lists = isinstance(before, list | tuple) and isinstance(after, list | tuple)
    if lists and len(before) == len(after):
        named = enumerate(zip(before, after, strict=True))
        return [(f"{path}[{place}]", one, other) for place, (one, other) in named]
    return None
