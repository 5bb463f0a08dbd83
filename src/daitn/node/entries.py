"""Optional entries of a node's file: only invalid ones are left out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from daitn.objects.descriptors import LeftOut
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.text import without_folders
from daitn.objects.wire import checked

__all__ = ["good_entries", "left_out"]

EntryT = TypeVar("EntryT", bound=msgspec.Struct)

_MOST = 256
"""The descriptor's limit."""
_NAME_CHARS, _REASON_CHARS = 200, 2000
_ITSELF = "entry"


def good_entries(
    plain: object,
    kind: type[EntryT],
    field: str,
    complete: Callable[[EntryT], tuple[str, EntryT]],
    rejected: list[LeftOut],
) -> dict[int, EntryT]:
    """The valid entries of a list, by position; the others are appended to `rejected`.

    `complete` returns an entry's unique name and the completed entry; it raises `DaitnError` for an
    invalid one. Raises `InvalidInput` if `plain` is not a list.
    """
    if not isinstance(plain, list | tuple):
        raise InvalidInput("is not a list", field=field, fix="begin each entry with `- `")
    valid: dict[int, EntryT] = {}
    names: set[str] = set()
    for position, entry in enumerate(plain):
        try:
            name, completed = complete(checked(entry, kind, _ITSELF))
            if name in names:
                raise InvalidInput(f"{name} is used twice", fix="give each entry a name of its own")
            if len(valid) >= _MOST:
                raise InvalidInput(f"there are more than {_MOST}", fix="run a second node")
            names.add(name)
            valid[position] = completed
        except DaitnError as error:
            rejected.append(left_out(f"{field}[{position}]", _name(entry), error))
    return valid


def left_out(field: str, name: str, error: DaitnError, path: str = "") -> LeftOut:
    """A public note on an entry that is left out. It reveals no folder, neither that of its file at
    `path` nor any other, and nothing of the file's content."""
    problem = error.problem
    if path:
        problem = problem.replace(path, os.path.basename(path))
    elif error.field not in ("", _ITSELF, field):
        problem = f"{error.field}: {problem}"
    reason = without_folders(problem)[:_REASON_CHARS]
    return LeftOut(field=field, name=name[:_NAME_CHARS], reason=reason)


def _name(entry: Any) -> str:
    """The name of an unchecked entry, if it has one."""
    stated = entry if isinstance(entry, dict) else {}
    return next((str(stated[key]) for key in ("name", "topic") if key in stated), "")
