"""Fields whose docstrings state a default as a number, which would not follow the code."""

from __future__ import annotations

from collections.abc import Iterator

from daitn.oam.docstring_values import stale
from daitn.oam.field_docs import field_texts
from scripts.reference.pages import DOCS, marks
from scripts.reference.tables import named

__all__ = ["stale_defaults"]

_OF_STRUCTS = ("fields", "array", "map", "members", "numbered", "constants")


def stale_defaults() -> Iterator[tuple[str, str]]:
    """Each such field of a class with a table in the docs, and the clause."""
    shown = {
        words[1]: None
        for page in sorted(DOCS.rglob("*.md"))
        for words in marks(page.read_text())
        if words[0] in _OF_STRUCTS
    }
    for name in shown:
        for kind in named(name).__mro__:
            if kind.__module__.startswith("daitn."):
                for field, text in field_texts(kind).items():
                    if clause := stale(text):
                        yield f"{name}.{field}", clause
