"""What peers of earlier and later releases say that this one does not know.

An unsigned message needs nothing: its reader ignores unknown fields. A signature, however, covers
them too. The receiver of a signed message therefore checks the bytes that it received (see
`daitn.identity.received`). What is kept and passed on, in MessagePack and in JSON, is encoded again
at every site on the way: it is `Extensible`.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Final

import msgspec

from daitn.objects.text import LINE_PATTERN, Line
from daitn.objects.wire import canonical

__all__ = ["MOST_MORE", "MOST_MORE_BYTES", "Extensible", "More", "is_bounded", "is_plain", "reads"]

MOST_MORE: Final = 32
"""Fields that later releases can add to one fact."""
MOST_MORE_BYTES: Final = 32 << 10
"""Their maximum size together, enough for a digest of each of the 256 models of a merge."""
_UNKNOWN_BYTES: Final = 64 << 10
"""Bytes of unknown fields in a signed message of any size; a larger one may have as many more as
its known fields take."""
_MOST_UNKNOWN_BYTES: Final = 1 << 20
"""Their maximum in what a member signs: if they are read value by value, each takes up to 4 µs."""
_MOST_NESTED: Final = 32
"""Lists and mappings within each other. If they are read one by one, each is read again with those
around it."""

_Name = Annotated[Line, msgspec.Meta(min_length=1, max_length=64)]
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Plain = _Whole | float | bool | str | None
"""A text is a `Line`. The type does not say so: msgspec 0.22 crashes when it collects a type in
which a text with a pattern is one of several things, and a list or a mapping another."""

More = Annotated[
    dict[_Name, _Plain | tuple[_Plain, ...] | dict[_Name, _Plain]],
    msgspec.Meta(min_length=1, max_length=MOST_MORE),
]
"""Values by name, which read the same in MessagePack and in JSON."""

_LINE = re.compile(LINE_PATTERN)


class Extensible(msgspec.Struct, frozen=True, kw_only=True):
    """A signed fact that is kept and passed on. Its fields never change: a later release puts what
    it adds into `more`, where every release from this one on verifies it and keeps it."""

    more: More | msgspec.UnsetType = msgspec.UNSET
    """What later releases add; this one adds nothing."""

    def __post_init__(self) -> None:
        if self.more is msgspec.UNSET:
            return
        for value in self.more.values():
            many = tuple(value.values()) if isinstance(value, dict) else value
            for one in many if isinstance(many, tuple) else (many,):
                if isinstance(one, float) and not math.isfinite(one):
                    raise ValueError("more: a number is not finite")
                if isinstance(one, str) and not _LINE.match(one):
                    raise ValueError("more: a text is not visible text on one line")
        if len(canonical(self.more)) > MOST_MORE_BYTES:
            raise ValueError(f"more: it has more than {MOST_MORE_BYTES} bytes")


def is_plain(text: bytes) -> bool:
    """Whether some bytes are MessagePack as a release writes it: no name occurs twice, and no
    value is longer than necessary."""
    return _read(text) is not _NOTHING


def is_bounded(text: bytes, known: bytes) -> bool:
    """Whether a text of a member has few enough unknown fields. `known`: what this release writes
    of it."""
    return len(text) - len(known) <= min(len(known) + _UNKNOWN_BYTES, _MOST_UNKNOWN_BYTES)


def reads(text: bytes, value: object, *, later: bool) -> bool:
    """Whether a text is the canonical form of the value that was read from it, as some release
    writes it: an earlier one knew fewer fields; a `later` one may know more."""
    known = canonical(value)
    if text == known:
        return True
    if len(text) > 2 * len(known) + _UNKNOWN_BYTES or (plain := _read(text)) is _NOTHING:
        return False
    return _alike(plain, msgspec.msgpack.decode(known), later)


_NOTHING: Final = object()
_ENCODER = msgspec.msgpack.Encoder()
_MAPPING = msgspec.msgpack.Decoder(dict[str | int, msgspec.Raw])
_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])


def _read(text: bytes) -> object:
    try:
        return _plain(memoryview(text), _MOST_NESTED)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
        return _NOTHING


def _plain(text: memoryview, nested: int) -> object:
    """The value of a text. Raises `ValueError` and what msgspec does unless it is plain. Only where
    a length tells nothing are its values read one by one, `nested` levels deep, in place."""
    value: object = msgspec.msgpack.decode(text)
    if _ENCODER.encode(value) == text:
        return value
    if nested == 0:
        raise ValueError("it is nested too deeply")
    head = text[0]
    if head & 0xF0 == 0x80 or head in (0xDE, 0xDF):
        fields = {name: memoryview(raw) for name, raw in _MAPPING.decode(text).items()}
        size = sum(len(_ENCODER.encode(name)) + len(raw) for name, raw in fields.items())
        before = 3 if head == 0xDE else 5 if head == 0xDF else 1
        if len(text) != before + size:
            raise ValueError("a name occurs twice")
        # msgspec writes a longer head before fewer than 16 fields if some of 16 are left out.
        if before not in {_head_bytes(len(fields)), _head_bytes(16)}:
            raise ValueError("a length is longer than necessary")
        return {name: _plain(raw, nested - 1) for name, raw in fields.items()}
    if head & 0xF0 == 0x90 or head in (0xDC, 0xDD):
        items = [memoryview(raw) for raw in _LIST.decode(text)]
        if len(text) - sum(map(len, items)) != _head_bytes(len(items)):
            raise ValueError("a length is longer than necessary")
        return [_plain(item, nested - 1) for item in items]
    raise ValueError("a value is longer than necessary")


def _head_bytes(count: int) -> int:
    """Bytes before the items of a list or mapping, see the specification of MessagePack."""
    return 1 if count < 16 else 3 if count < 1 << 16 else 5


def _alike(plain: object, whole: object, later: bool) -> bool:
    """Whether the fields in both have the same order and values, and all are in the second unless
    `later`."""
    if isinstance(plain, dict) and isinstance(whole, dict):
        both = [name for name in whole if name in plain]
        said = [name for name in plain if name in whole] if later else list(plain)
        return said == both and all(_alike(plain[n], whole[n], later) for n in both)
    if isinstance(plain, list) and isinstance(whole, list):
        same = len(plain) == len(whole)
        return same and all(_alike(a, b, later) for a, b in zip(plain, whole, strict=True))
    return type(plain) is type(whole) and plain == whole
