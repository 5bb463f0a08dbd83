"""Types, bounds and defaults in words."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

import msgspec

from daitn.objects.bounds import Share
from daitn.objects.identifiers import SiteId
from daitn.objects.text import LINE_PATTERN
from daitn.steering.wire.intent import Amount, Name

__all__ = ["default_words", "type_words"]

_PLAIN: Final[dict[object, str]] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    bytes: "bytes",
    object: "any value",
    Any: "any value",
    SiteId: "site name",
}
_PLURAL: Final = {
    "text": "texts",
    "integer": "integers",
    "number": "numbers",
    "site name": "site names",
    "name": "names",
    "mapping": "mappings",
    "share": "shares",
    "amount": "amounts",
}
_WIRE_NAMES: Final = ((Name, "name"), (Share, "share"), (Amount, "amount"))
"""Of these `aats-wire.md` says what they mean."""


def type_words(hint: Any, field: str, *, wire: bool = False) -> str:
    """A field's type and bounds; the unit is in the field's name. `wire`: as MessagePack."""
    for known, name in _WIRE_NAMES:
        if wire and hint == known:
            return name
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        found = [meta for meta in metas if isinstance(meta, msgspec.Meta)]
        return _bounded(type_words(inner, field, wire=wire), found, field)
    if hint in _PLAIN:
        return _with_unit(_PLAIN[hint], field)
    if isinstance(hint, NewType):
        return type_words(hint.__supertype__, field, wire=wire)
    if get_origin(hint) in (Union, types.UnionType):
        return _union(get_args(hint), field, wire)
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    return _compound(hint, field, wire)


def _union(parts: tuple[Any, ...], field: str, wire: bool) -> str:
    """Structs with tags are all mappings; none is said by the default of a file's field."""
    words = [type_words(part, field, wire=wire) for part in parts if part not in _ABSENT]
    if len(words) > 1 and all(isinstance(part, msgspec.StructMeta) for part in parts):
        return "map"
    return ", or ".join([*words, *(["nil"] if wire and _NONE in parts else [])])


_NONE = type(None)
_ABSENT = (_NONE, msgspec.UnsetType)


def _compound(hint: Any, field: str, wire: bool) -> str:
    if get_origin(hint) in (tuple, list):
        inner = _inside(type_words(get_args(hint)[0], field, wire=wire), plural=True)
        return f"{'array' if wire else 'list'} of {inner}"
    if get_origin(hint) is dict:
        key, value = (type_words(part, field, wire=wire) for part in get_args(hint))
        whole = "map" if wire else "mapping"
        return f"{whole} of {_inside(key, plural=True)} to {_inside(value, plural=False)}"
    if isinstance(hint, enum.EnumMeta):
        members: list[enum.Enum] = list(hint)
        if issubclass(hint, int):
            numbers = [member.value for member in members]
            return f"{min(numbers)} to {max(numbers)}"
        return ", ".join(f"`{member.value}`" for member in members)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint.__name__ if wire else "mapping"
    raise LookupError(f"no words for the type {hint} of {field}")


def _inside(word: str, *, plural: bool) -> str:
    """What a container holds: bounds of numbers in brackets, and none of texts."""
    noun, _, bounds = word.partition(", ")
    if noun not in _PLURAL:
        return word
    said = _PLURAL[noun] if plural else noun
    return f"{said} ({bounds})" if bounds and noun != "text" else said


def _with_unit(word: str, field: str) -> str:
    if word not in ("integer", "number"):
        return word
    if field.endswith("_s") and not field.endswith("per_s"):
        return "seconds"
    if field.endswith("_bytes"):
        return "bytes"
    return "USD" if "_usd" in field else word


def _bounded(word: str, metas: Iterable[msgspec.Meta], field: str) -> str:
    for meta in metas:
        least = _number(meta.ge, field), _number(meta.le, field)
        match least:
            case (str(low), str(high)):
                word += f", {low} to {high}"
            case (str(low), None):
                word += f", at least {low}"
            case (None, str(high)) if meta.gt is None:
                word += f", at most {high}"
        if meta.gt is not None:
            word += f", above {_number(meta.gt, field)}"
            word += f", at most {_number(meta.le, field)}" if meta.le is not None else ""
        if meta.pattern not in (None, LINE_PATTERN):
            word += f", `{meta.pattern}`"
        word = _sized(word, meta.min_length, meta.max_length)
    return word


def _sized(word: str, least: int | None, most: int | None) -> str:
    if least is None and most is None:
        return word
    if least == most:
        bound = f"{least:,}"
    elif least is not None and most is not None:
        bound = f"{least:,} to {most:,}"
    else:
        bound = f"at least {least:,}" if least is not None else f"at most {most:,}"
    if word == "bytes":
        return f"{bound} bytes"
    return f"{word}, {bound}" if " of " in word else f"{word}, {bound} characters"


def default_words(value: object, field: str, *, wire: bool = False) -> str:
    """A default as a file would say it; nothing for a field that has none."""
    match value:
        case msgspec.NODEFAULT:
            return "" if wire else "required"
        case None:
            return "nil" if wire else "none"
        case msgspec.UNSET:
            return "absent" if wire else "none"
        case bool():
            return str(value).lower()
        case enum.Enum():
            return f"`{value.value}`"
        case int() | float():
            return _number(value, field) or ""
        case "":
            return "empty"
        case str():
            return f"`{value}`"
        case tuple() | list() | dict() if not value:
            return "empty"
        case tuple():
            return "`[" + ", ".join('"*"' if part == "*" else str(part) for part in value) + "]`"
        case msgspec.Struct():
            return "its defaults"
    raise LookupError(f"no words for the default {value!r} of {field}")


def _number(value: float | None, field: str) -> str | None:
    if value is None:
        return None
    whole = int(value)
    if whole != value:
        return f"{value:g}"
    if field.endswith("_bytes"):
        for unit, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if whole and whole % (1 << unit) == 0:
                return f"{whole >> unit} {name}"
    for base, least in ((10, 10**6), (2, 2**20)):
        power = len(str(whole)) - 1 if base == 10 else whole.bit_length() - 1
        if whole >= least and base**power == whole:
            return f"{base}^{power}"
    return f"{whole:,}"
