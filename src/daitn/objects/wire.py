"""Serialisation: MessagePack on the wire, JSON for people; YAML is only read, from files.

Digests and signatures are computed over `canonical`: equal values always give equal bytes, whatever
the insertion order of their dictionaries.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, TypeVar, overload

import msgspec

from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.text import typed

__all__ = ["canonical", "checked", "decode", "encode", "encode_checked", "to_json"]

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


def encode_checked(value: object) -> bytes:
    """MessagePack of a struct that meets the bounds of its fields, as its receiver requires. Raises
    `InvalidInput` naming the field, and like `encode`."""
    payload = encode(value)
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
    `encode`, and for keys that are no text."""
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
    """JSON for people and scripts. Raises `InvalidInput` for text that is no Unicode."""
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    except UnicodeEncodeError as error:
        raise _unsendable(value, error) from None


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
