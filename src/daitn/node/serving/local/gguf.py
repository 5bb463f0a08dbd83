"""Reads a model's facts from a llama.cpp file. Format: ggml's `docs/gguf.md`, versions 2 and 3."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from daitn.objects.errors import Corrupt, InvalidInput, NotFound

__all__ = ["GgufFacts", "read_gguf"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MOST_TEXT_BYTES = 1 << 24
"""Maximum size of a text, such as a chat template."""
_MOST_ENTRIES = 1 << 24
"""Maximum length of a list; vocabularies have some 2^18."""
_MOST_NESTED = 4
_CACHE_BYTES = 2
"""Keys and values are float16."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf")
_RANKS = 4
"""The pooling type of models that score."""
_EMBEDS = ("bert", "t5encoder")
"""Architectures with this suffix embed without stating it."""

_Value = int | float | bool | str | list["_Value"] | None


class GgufFacts(NamedTuple):
    """Facts about a model in one file or several."""

    size_bytes: int
    """Size of all its files."""
    context_tokens: int
    """Context in training; 0 means not stated."""
    per_token_bytes: int
    """Maximum cache per token; 0 means not stated."""
    embeds: bool
    """Whether it embeds texts rather than continuing them."""
    ranks: bool = False
    """Whether it scores documents for a query, and does nothing else."""


def read_gguf(path: Path, field: str) -> GgufFacts:
    """Read the head of a file, and look for the others of its model.

    Raises `NotFound`, `InvalidInput` for a file of another kind, and `Corrupt`, all naming `field`.
    """
    try:
        size_bytes = sum(part.stat().st_size for part in _parts(path))
        with path.open("rb") as file:
            values = _Head(file, field).values()
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no file {error.filename}", field=field, fix="check the path"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not a path"
        raise InvalidInput(
            f"{path} cannot be read: {why}", field=field, fix="name a file that may be read"
        ) from None
    except struct.error:
        raise _damaged(field) from None
    kind = str(values.get("general.architecture", ""))

    def number(name: str) -> int:
        """The largest value, if each layer has its own."""
        value = values.get(f"{kind}.{name}")
        each = value if isinstance(value, list) else [value]
        return max((one for one in each if isinstance(one, int)), default=0)

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    key, value = (number(f"attention.{each}_length") or width for each in ("key", "value"))
    per_layer = (number("attention.head_count_kv") or heads) * (key + value)
    return GgufFacts(
        size_bytes=size_bytes,
        context_tokens=number("context_length"),
        per_token_bytes=_CACHE_BYTES * number("block_count") * per_layer,
        embeds=f"{kind}.pooling_type" in values or kind.endswith(_EMBEDS),
        ranks=values.get(f"{kind}.pooling_type") == _RANKS,
    )


def _parts(path: Path) -> list[Path]:
    """All files of the model with this first file."""
    found = _PART.search(path.name)
    if found is None:
        return [path]
    start, count = path.name[: found.start()], found[2]
    return [
        path.with_name(f"{start}-{number:05d}-of-{count}.gguf")
        for number in range(1, int(count) + 1)
    ]


def _damaged(field: str) -> Corrupt:
    return Corrupt(
        "the file is cut off or damaged", field=field, fix="copy it again, and compare its digest"
    )


class _Head:
    """The names and values at the start of a file."""

    def __init__(self, file: BinaryIO, field: str) -> None:
        self._file = file
        self._field = field

    def values(self) -> dict[str, _Value]:
        """All values."""
        if (magic := self._file.read(4)) != _MAGIC:
            raise InvalidInput(
                f"this is not a GGUF file: it begins with {magic!r}",
                field=self._field,
                fix="name a file of llama.cpp; for a folder of `transformers` state `folder`",
            )
        if (version := self._number("I")) not in _VERSIONS:
            raise InvalidInput(
                f"this is version {version} of the format; supported: {_VERSIONS}",
                field=self._field,
                fix="convert the model again",
            )
        self._number("Q")  # How many tensors.
        count = self._length(_MOST_ENTRIES)
        return {self._text(): self._value(int(self._number("I"))) for _ in range(count)}

    def _value(self, kind: int, depth: int = 0) -> _Value:
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            return self._list(depth)
        if kind not in _NUMBERS:
            raise _damaged(self._field)
        return self._number(_NUMBERS[kind])

    def _list(self, depth: int) -> list[_Value]:
        kind, count = int(self._number("I")), self._length(_MOST_ENTRIES)
        if depth >= _MOST_NESTED:
            raise _damaged(self._field)
        if kind in _NUMBERS:
            form = f"<{count}{_NUMBERS[kind]}"
            return list(struct.unpack(form, self._bytes(struct.calcsize(form))))
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _text(self) -> str:
        return self._bytes(self._length(_MOST_TEXT_BYTES)).decode(errors="replace")

    def _length(self, most: int) -> int:
        length = int(self._number("Q"))
        if length > most:
            raise _damaged(self._field)
        return length

    def _number(self, form: str) -> int | float:
        (number,) = struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))
        return number  # type: ignore[no-any-return]

    def _bytes(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise _damaged(self._field)
        return data
