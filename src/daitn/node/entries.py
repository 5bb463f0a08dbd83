"""Entries of a node's file that it can do without: each stands or falls alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from daitn.objects.descriptors import LeftOut
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.wire import checked

__all__ = ["good_entries", "left_out"]

EntryT = TypeVar("EntryT", bound=msgspec.Struct)

_MOST = 256
"""As a descriptor has room for."""
_NAME_CHARS, _REASON_CHARS = 200, 2000
_ITSELF = "entry"


def good_entries(
    plain: object,
    kind: type[EntryT],
    field: str,
    complete: Callable[[EntryT], tuple[str, EntryT]],
    apart: list[LeftOut],
) -> dict[int, EntryT]:
    """The entries of a list that can be used, by position; the others are put into `apart`.

    `complete` returns what no two entries may share, and the entry for use; it raises `DaitnError`
    for one that cannot be used. Raises `InvalidInput` where there is no list.
    """
    if not isinstance(plain, list | tuple):
        raise InvalidInput("is no list", field=field, fix="begin each entry with `- `")
    good: dict[int, EntryT] = {}
    names: set[str] = set()
    for position, entry in enumerate(plain):
        try:
            name, made = complete(checked(entry, kind, _ITSELF))
            if name in names:
                raise InvalidInput(f"{name} is there twice", fix="give each its own")
            if len(good) >= _MOST:
                raise InvalidInput(f"there are more than {_MOST}", fix="run a second node")
            names.add(name)
            good[position] = made
        except DaitnError as error:
            apart.append(left_out(f"{field}[{position}]", _name(entry), error))
    return good


def left_out(field: str, name: str, error: DaitnError, path: str = "") -> LeftOut:
    """A word on what is left out. Of its file at `path`, it tells neither folders nor content."""
    problem = error.problem
    if path:
        problem = problem.replace(path, os.path.basename(path))
    elif error.field not in ("", _ITSELF, field):
        problem = f"{error.field}: {problem}"
    return LeftOut(field=field, name=name[:_NAME_CHARS], reason=problem[:_REASON_CHARS])


def _name(entry: Any) -> str:
    """What an entry that may be anything is called."""
    stated = entry if isinstance(entry, dict) else {}
    return next((str(stated[key]) for key in ("name", "topic") if key in stated), "")
