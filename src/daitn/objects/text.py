"""Normalises words that people write in files and forms, so that they compare equal.

`é` is one character or two (`e` and an accent), depending on keyboard, file system and spreadsheet;
both look alike. Names of columns, labels, classes and topics are compared in Unicode's normal form
C, without surrounding white space. Case is kept: `Ill` and `ill` are two words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import msgspec

__all__ = ["plain", "plain_fields", "plain_words"]

_INVISIBLE = "\ufeff\u200b\u2060"
"""Byte order mark and zero-width spaces, which spreadsheets leave at the ends of cells."""


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
