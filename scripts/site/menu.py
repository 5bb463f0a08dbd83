"""The menu: pages by their folder, in the order in which the first page's table names them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from sphinx.application import Sphinx

__all__ = ["setup"]

_PARTS = {
    "tutorial": "Tutorials",
    "how-to": "How to",
    "explanation": "Explanation",
    "reference": "Reference",
    ".": "Taking part",
}
_PAGE = re.compile(r"^\|.*\]\(([\w/-]+)\.md\) \|$", re.MULTILINE)


def _add_menu(app: Sphinx, page: str, source: list[str]) -> None:
    if page != app.config.root_doc:
        return
    pages = _PAGE.findall(source[0])
    for folder, caption in _PARTS.items():
        of_it = [page for page in pages if str(PurePosixPath(page).parent) == folder]
        lines = [":hidden:", f":caption: {caption}", "", *of_it]
        source[0] += "\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _add_menu)
    return {"parallel_read_safe": False}
