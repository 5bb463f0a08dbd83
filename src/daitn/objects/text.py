"""One spelling per word: what people write in files and forms, before it is compared.

`é` is one character or two (`e` and an accent), depending on keyboard, file system and
spreadsheet; both look alike. Names of columns, labels, classes and topics are compared in Unicode's
normal form C, without what surrounds them. Case is kept: `Ill` and `ill` are two words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import msgspec

__all__ = ["plain", "plain_fields", "plain_words"]

_INVISIBLE = "\ufeff\u200b\u2060"
"""Byte order mark and spaces without width, which spreadsheets leave at the ends of cells."""


def plain(text: str) -> str:
    """`text` as it is compared."""
    if text.isascii():
        return text.strip()
    before = None
    while before != text:
        before, text = text, text.strip().strip(_INVISIBLE)
    return unicodedata.normalize("NFC", text)


def plain_words(words: Iterable[str]) -> tuple[str, ...]:
    """Each as it is compared, and none twice."""
    return tuple(dict.fromkeys(map(plain, words)))


def plain_fields(value: msgspec.Struct, *fields: str, blank: bool = True) -> None:
    """Bring fields of a struct that is being made, texts or tuples of texts, into plain form.

    Raises `ValueError` for a word of which nothing is left, unless it may be `blank`.
    """
    for field in fields:
        written = getattr(value, field)
        bare = plain(written) if isinstance(written, str) else plain_words(written)
        if not (blank or (bare and all(bare))):
            raise ValueError(f"{field}: a word is blank")
        if bare != written:
            msgspec.structs.force_setattr(value, field, bare)
