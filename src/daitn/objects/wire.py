"""Serialisation: MessagePack on the wire, JSON for people; YAML is only read, from files.

Digests and signatures are computed over `canonical`: equal values always give equal bytes, whatever
the insertion order of their dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Any, TypeVar, overload

import msgspec

from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.text import typed

__all__ = [
    "canonical",
    "checked",
    "decode",
    "encode",
    "encode_checked",
    "encode_request",
    "is_whole",
    "json_request",
    "to_json",
]

T = TypeVar("T")

_ENCODER = msgspec.msgpack.Encoder()
_CANONICAL = msgspec.msgpack.Encoder(order="deterministic")


def encode(value: object) -> bytes:
    """MessagePack of a struct. Raises `InvalidInput` for a number beyond 64 bits, for text that is
    no Unicode, and for too much nesting."""
    try:
        return _ENCODER.encode(value)
    except (OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _unsendable(value, error) from None


def encode_request(value: object) -> bytes:
    """MessagePack of a request, without the fields that have their defaults, at any depth.

    Some receivers refuse fields that they do not know. A sender that does not use what its release
    added says nothing that an earlier release could refuse. Raises like `encode`.
    """
    return _request(value, _ENCODER.encode)


def json_request(value: object) -> bytes:
    """Likewise as JSON."""
    return _request(value, msgspec.json.encode)


def _request(value: object, write: Callable[[object], bytes]) -> bytes:
    try:
        return write(_stated(value))
    except (OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _unsendable(value, error) from None


def encode_checked(value: object) -> bytes:
    """MessagePack of a request that meets the bounds of its fields, as its receiver requires.
    Raises `InvalidInput` naming the field, and like `encode`."""
    payload = encode_request(value)
    try:
        msgspec.msgpack.decode(payload, type=type(value))
    except msgspec.ValidationError as error:
        problem, field = _located(error)
        raise InvalidInput(
            problem, field=field or type(value).__name__, fix="correct this value"
        ) from None
    return payload


def canonical(value: object) -> bytes:
    """MessagePack in one fixed order, for digests and signatures. Raises `InvalidInput` like
    `encode`, and for keys that are not text."""
    try:
        return _CANONICAL.encode(value)
    except (OverflowError, RecursionError, UnicodeEncodeError, TypeError) as error:
        raise _unsendable(value, error) from None


@overload
def decode(data: bytes, kind: type[T]) -> T: ...
@overload
def decode(data: bytes, kind: UnionType) -> Any: ...
def decode(data: bytes, kind: Any) -> Any:
    """Decode a struct received from the network. Raises `Corrupt` on anything else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise Corrupt(
            f"received bytes are not a {name}: {_plain(str(error))}",
            fix="check that both ends run compatible versions of daitn",
        ) from None


def is_whole(read: Callable[[T], object], data: T) -> bool:
    """Whether `read` accepts the data, rather than raising `Corrupt`."""
    try:
        read(data)
    except Corrupt:
        return False
    return True


def checked(value: object, kind: type[T], what: str) -> T:
    """Turn plain data from a file into a struct.

    Raises `InvalidInput` naming the field by its path, for instance `objectives[1].at_least`.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        problem, field = _located(error)
        raise InvalidInput(
            problem, field=field or what, fix=f"correct it in the {what}; see `daitn schema {what}`"
        ) from None


def to_json(value: object, *, indent: int = 2) -> str:
    """JSON for people and scripts. Raises `InvalidInput` for text that is not Unicode."""
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    except UnicodeEncodeError as error:
        raise _unsendable(value, error) from None


def _stated(value: Any) -> Any:
    """A value whose structs are mappings of the fields that differ from their defaults."""
    match value:
        case msgspec.Struct() if not value.__struct_config__.array_like:
            config = value.__struct_config__
            stated = {} if config.tag_field is None else {config.tag_field: config.tag}
            for field in _fields(type(value)):
                one = getattr(value, field.name)
                default = _default(field)
                if one is msgspec.UNSET:
                    continue
                if type(one) is not type(default) or one != default:
                    stated[field.encode_name] = _stated(one)
            return stated
        case dict():
            return {name: _stated(one) for name, one in value.items()}
        case list() | tuple():
            return [_stated(one) for one in value]
    return value


_fields = cache(msgspec.structs.fields)


def _default(field: msgspec.structs.FieldInfo) -> object:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else made()


def _unsendable(value: object, error: Exception) -> InvalidInput:
    name = type(value).__name__
    match error:
        case UnicodeEncodeError():
            problem, fix = "a text in it is not Unicode", "write characters as such, in UTF-8"
        case TypeError():
            problem, fix = str(error), "use texts as keys"
        case _:
            problem, fix = str(error), "use whole numbers below 2^63, and less nesting"
    return InvalidInput(f"{name} cannot be written: {problem}", field=name, fix=fix)


def _located(error: Exception) -> tuple[str, str]:
    """msgspec's message in plain words, and the path of the field; empty for the whole."""
    problem, _, path = str(error).replace("key` in `", "").partition(" - at `")
    return _plain(problem), path.rstrip("`").removeprefix("$").removeprefix(".")


def _plain(problem: str) -> str:
    """msgspec's message, with type names that the author of a YAML file understands."""
    problem = typed(problem)
    for python, plain in (("`array`", "a list"), ("`object`", "a mapping"), ("`str`", "text")):
        problem = problem.replace(python, plain)
    return problem
