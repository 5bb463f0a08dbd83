"""Texts: words that compare equal however they were typed, and texts that are safe to show.

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
from typing import Annotated, Final

import msgspec

__all__ = [
    "Line",
    "counted",
    "ends_in_start",
    "escaped",
    "escaped_json",
    "figure",
    "hanging",
    "plain",
    "plain_fields",
    "plain_words",
    "without_folders",
]

_UNSEEN = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Control characters (C0, DEL, C1), line and paragraph separators, and Unicode's bidirectional
marks, embeddings, overrides and isolates."""
LINE_PATTERN: Final = rf"^[^{_UNSEEN}]*\Z"
Line = Annotated[str, msgspec.Meta(pattern=LINE_PATTERN)]
"""Text without anything that a terminal or a log would act on."""

_UNSEEN_IN_TEXT = re.compile(rf"(?![\n\t])[{_UNSEEN}]")

_FOLDERS = re.compile(r"(?<![\w/.<+])(?<!:(?=//))/(?=[^\s/])(?:[^\n'\"`:;]{0,1000}/)?(?=[^\s/])")
"""The folders of an absolute path, whose names may hold spaces: all up to its last slash. No path
begins in an address, in `site/name`, in `+/-`, or with a space."""

_INVISIBLE = "\ufeff\u200b\u2060"
"""Byte order mark and zero-width spaces, which spreadsheets leave at the ends of cells."""


def counted(count: int, thing: str) -> str:
    """A number of things: `1 visit`, `2 visits`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def figure(value: float) -> str:
    """A positive number for people, with three digits or all before the point: `0.0123`, `1234`."""
    return f"{float(f'{value:.3g}'):g}" if value < 1000.0 else f"{value:.0f}"


def plain(text: str) -> str:
    """`text` in the form in which it is compared."""
    if text.isascii():
        return text.strip()
    before = None
    while before != text:
        before, text = text, text.strip().strip(_INVISIBLE)
    return unicodedata.normalize("NFC", text)


def plain_words(words: Iterable[str]) -> tuple[str, ...]:
    """All words in the form in which they are compared, without duplicates."""
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
    """Free text as it may be shown: line breaks and tabs stay, other unseen characters become
    visible escapes."""
    return text if text.isprintable() else _UNSEEN_IN_TEXT.sub(_visible, text)


def hanging(text: str) -> str:
    """As `escaped`, with all lines but the first indented: they cannot pass for others."""
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
    """Whether a text that goes on may end with a mark: it ends with the beginning of one."""
    return any(
        text.endswith(mark[:size])
        for mark in marks
        for size in range(1, min(len(mark), len(text) + 1))
    )
