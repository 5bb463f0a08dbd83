"""Pages with marks, and what belongs between them.

`<!-- generated: KIND WORDS -->` begins a table and `<!-- = NAME -->` a value in a sentence, both up
to `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daitn.oam.docstring_values import said
from scripts.reference.rows import NoTable
from scripts.reference.tables import TABLES, named

__all__ = ["DOCS", "REFERENCE", "marks", "rewritten", "values"]

DOCS: Final = Path(__file__).parents[2] / "docs"
REFERENCE: Final = DOCS / "reference"
_MARKED = re.compile(r"(?m)^<!-- generated: (?P<what>.+) -->\n(?:.*\n)*?<!-- end -->$")

_STATED = re.compile(r"<!-- = (?P<name>[\w.]+) -->.*?<!-- end -->")


def marks(text: str) -> list[list[str]]:
    """The words of each mark on a page."""
    return [match["what"].split() for match in _MARKED.finditer(text)]


def values(text: str) -> list[str]:
    """The names of the values in a page's sentences."""
    return [match["name"] for match in _STATED.finditer(text)]


def rewritten(text: str) -> str:
    """The page as the code says it now. Raises `NoTable` for a table that there is not, and
    `LookupError` for such a value."""
    text = _MARKED.sub(lambda match: _section(match["what"]), text)
    return _STATED.sub(lambda match: _value(match["name"]), text)


def _value(name: str) -> str:
    return f"<!-- = {name} -->{said(name, named(name))}<!-- end -->"


def _section(what: str) -> str:
    kind, *words = what.split()
    if kind not in TABLES:
        raise NoTable(f"no table is of the kind `{kind}`, only of {', '.join(TABLES)}")
    head, *rows = TABLES[kind](*words)
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return f"<!-- generated: {what} -->\n" + "\n".join(lines) + "\n<!-- end -->"


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in escaped)
