"""Values of the code in texts: `{PULL}` in a docstring stands for the constant of that name.

A name is one of the docstring's module, or has its path below `daitn` in front:
`{objects.merging.PULL}`. A mapping's item is an attribute: `{LOCAL_RULES.ewc.consolidation}`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

__all__ = ["filled", "said", "stale", "value_of"]

_NAMED = re.compile(r"\{((?:[a-z_]+\.)*_?[A-Z][A-Z_]*(?:\.[a-z_]+)*)\}")
_CLAUSE = re.compile(r"[.;](?:\s|$)")
_NUMBER = re.compile(r"(?<![\w^])\d")
_UNITS = ((30, "GiB"), (20, "MiB"), (10, "KiB"))


def filled(text: str, module: str) -> str:
    """A docstring of a module with values in place of names. Raises `LookupError` for a name that
    there is not."""
    return _NAMED.sub(lambda match: said(match[1], value_of(match[1], module)), text)


def stale(text: str) -> str:
    """The first clause of a docstring that states a default as a number, and will not follow the
    code; empty if there is none."""
    for clause in _CLAUSE.split(text):
        if "default" in clause.lower() and _NUMBER.search(_NAMED.sub("", clause)):
            return clause.strip()
    return ""


def value_of(name: str, module: str) -> Any:
    """What a name stands for. Raises `LookupError`."""
    path = name.split(".")
    first = next(at for at, part in enumerate(path) if part != part.lower())
    home = ".".join(["daitn", *path[:first]]) if first else module
    try:
        return reduce(_part, path[first:], importlib.import_module(home))
    except (AttributeError, ImportError, KeyError):
        raise LookupError(f"{module}: there is no {name}") from None


def _part(whole: Any, name: str) -> Any:
    return whole[name] if isinstance(whole, Mapping) else getattr(whole, name)


def said(name: str, value: object) -> str:
    """A value in words, with the unit that its name states."""
    match value:
        case Mapping():
            return ", ".join(f"`{key}` {said('', each)}" for key, each in value.items())
        case tuple() if value:
            *first, last = (said("", each) for each in value)
            return f"{', '.join(first)} and {last}" if first else last
        case str():
            return f"`{value}`"
        case int() if name.upper().endswith("_BYTES"):
            return next(
                (
                    f"{value >> bits} {unit}"
                    for bits, unit in _UNITS
                    if value and not value % (1 << bits)
                ),
                f"{value:,} bytes",
            )
        case int() | float():
            number = f"{value:,}" if isinstance(value, int) else f"{value:g}"
            return f"{number} s" if name.upper().endswith("_S") else number
    raise LookupError(f"no words for {name}, {value!r}")
