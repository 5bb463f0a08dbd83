"""Texts: words that compare equal however they were typed, and texts that are safe to display.

`é` is one character or two (`e` and an accent), depending on keyboard, file system and spreadsheet;
both look alike. Names of columns, labels, classes and topics are compared in Unicode's normal form
C, without surrounding white space. Case is kept: `Ill` and `ill` are two words.

Names come from the network, and end in logs and on terminals. An escape sequence there moves the
cursor or sets a title, a line break forges a line, and a bidirectional override shows one name as
another. So a name is a `Line`, which holds none of these, and free text is `escaped` where it is
shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Final

import msgspec

__all__ = [
    "Line",
    "counted",
    "decimals",
    "encodable",
    "ends_in_start",
    "escaped",
    "escaped_json",
    "figure",
    "hanging",
    "plain",
    "plain_fields",
    "plain_words",
    "some",
    "typed",
    "without_folders",
]

_UNSEEN = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Control characters (C0, DEL, C1), line and paragraph separators, and Unicode's bidirectional
marks, embeddings, overrides and isolates."""
LINE_PATTERN: Final = rf"^[^{_UNSEEN}]*\Z"
Line = Annotated[str, msgspec.Meta(pattern=LINE_PATTERN)]
"""Text without anything that a terminal or a log would act on."""

_UNSEEN_IN_TEXT = re.compile(rf"(?![\n\t])[{_UNSEEN}\ud800-\udfff]")
"""Also halves of surrogate pairs, which stand for bytes of file names that are not UTF-8."""

_FOLDERS = re.compile(r"(?<![\w/.<+])(?<!:(?=//))/(?=[^\s/])(?:[^\n'\"`:;]{0,1000}/)?(?=[^\s/])")
"""The folders of an absolute path, whose names may contain spaces: everything up to its last slash.
No path begins in an address, in `site/name`, in `+/-`, or with a space."""

_INVISIBLE = "\ufeff\u200b\u2060"
"""Byte order mark and zero-width spaces, which spreadsheets leave at the ends of cells."""


def typed(problem: str) -> str:
    """msgspec's message, with the pattern of a `Line` in words."""
    return problem.replace(f"`str` matching regex {LINE_PATTERN!r}", "visible text on one line")


def counted(count: int, thing: str) -> str:
    """A number of things: `1 visit`, `2 visits`, `2 queries`."""
    many = f"{thing[:-1]}ies" if thing.endswith("ry") else f"{thing}s"
    return f"{count} {thing if count == 1 else many}"


def some(names: Iterable[str], most: int = 5, *, between: str = ", ") -> str:
    """Names as a list of bounded length: `a, b and 3 more`."""
    every = list(names)
    end = between if between.strip() != "," else " "
    more = f"{end}and {len(every) - most} more" if len(every) > most else ""
    return between.join(every[:most]) + more


def encodable(text: str) -> bool:
    """Whether it is Unicode text. Bytes that are none, and escapes of half a surrogate pair, become
    characters that nothing can store, send or print."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def figure(value: float) -> str:
    """A positive number for people, with three digits, or all digits before the point: `0.0123`,
    `1234`."""
    return f"{float(f'{value:.3g}'):g}" if value < 1000.0 else f"{value:.0f}"


def decimals(value: float) -> str:
    """A number with all its digits and without an exponent: `0.00003`, `5`."""
    return f"{Decimal(repr(value)).normalize():f}"


def plain(text: str) -> str:
    """`text` in its form for comparison."""
    if text.isascii():
        return text.strip()
    before = None
    while before != text:
        before, text = text, text.strip().strip(_INVISIBLE)
    return unicodedata.normalize("NFC", text)


def plain_words(words: Iterable[str]) -> tuple[str, ...]:
    """All words in their form for comparison, without duplicates."""
    return tuple(dict.fromkeys(map(plain, words)))


def plain_fields(value: msgspec.Struct, *fields: str, blank: bool = True) -> None:
    """Normalise text fields (strings or tuples of strings) of a struct during its construction.

    Raises `ValueError` for a word that is empty after normalisation, unless it may be `blank`.
    """
    for field in fields:
        written = getattr(value, field)
        bare = plain(written) if isinstance(written, str) else plain_words(written)
        if not (blank or (bare and all(bare))):
            raise ValueError(f"{field}: a word is blank")
        if bare != written:
            msgspec.structs.force_setattr(value, field, bare)


def escaped(text: str) -> str:
    """Free text for display: line breaks and tabs stay, other invisible characters become visible
    escapes."""
    return text if text.isprintable() else _UNSEEN_IN_TEXT.sub(_visible, text)


def hanging(text: str) -> str:
    """Like `escaped`, with all lines but the first indented, so that they cannot pass for
    others."""
    return escaped(text).replace("\n", "\n    ")


def escaped_json(text: str) -> str:
    """The same JSON value, written so that a terminal acts on nothing in it."""
    return _UNSEEN_IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_folders(text: str) -> str:
    """The text with every absolute path cut to its last name."""
    return _FOLDERS.sub("", text)


def _visible(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def ends_in_start(text: str, marks: Iterable[str]) -> bool:
    """Whether the text ends with the beginning of a mark, which may continue."""
    return any(
        text.endswith(mark[:size])
        for mark in marks
        for size in range(1, min(len(mark), len(text) + 1))
    )
