"""Pages with marks, and the tables that belong between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.reference.rows import NoTable
from scripts.reference.tables import TABLES

__all__ = ["REFERENCE", "marks", "rewritten"]

REFERENCE: Final = Path(__file__).parents[2] / "docs/reference"
_MARKED = re.compile(r"(?m)^<!-- generated: (?P<what>.+) -->\n(?:.*\n)*?<!-- end -->$")


def marks(text: str) -> list[list[str]]:
    """The words of each mark on a page."""
    return [match["what"].split() for match in _MARKED.finditer(text)]


def rewritten(text: str) -> str:
    """The page as the code says it now. Raises `NoTable` for a table that there is not."""
    return _MARKED.sub(lambda match: _section(match["what"]), text)


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
