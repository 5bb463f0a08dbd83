"""Decodes MessagePack from the network: bounded, and with errors that name the field."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from daitn.objects.errors import Corrupt

__all__ = ["decoded"]

T = TypeVar("T")


def decoded(wire: bytes, decoder: msgspec.msgpack.Decoder[T], what: str, most: int) -> T:
    """Decode `wire`, which may have at most `most` bytes. Raises `Corrupt` naming the field."""
    if len(wire) > most:
        raise Corrupt(f"{what}: at most {most} bytes", field=what, fix="see aats-wire.md")
    try:
        return decoder.decode(wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(what, error) from None


def _malformed(what: str, error: Exception) -> Corrupt:
    """The error for bytes that are not a `what`.

    Its field is the path by position, such as `intent[3]`: structs are arrays on the wire, and
    `aats-wire.md` numbers their elements.
    """
    problem, _, path = str(error).replace("key` in `", "").partition(" - at `")
    return Corrupt(
        f"the {what} is malformed: {problem}",
        field=what + path.rstrip("`").removeprefix("$"),
        fix="see aats-wire.md",
    )
