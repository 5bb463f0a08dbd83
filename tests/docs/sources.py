"""The modules of the project, as text and as trees."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.docs.pages import DOCS

ROOT = DOCS.parent
ALONE = "/predict.py"
"""Ends the paths of what is written beside an exported model, where nothing of this project is
installed: each has all that it needs."""


class Source(NamedTuple):
    path: str
    """Below the project's folder."""
    tree: ast.Module

    @property
    def package(self) -> str:
        """Of a module in `src`: the first part of its name below `daitn`; empty at the top."""
        _, _, *folders, _ = Path(self.path).parts
        return folders[0] if folders else ""

    @property
    def module(self) -> str:
        """Of a file in `src`: the name that imports it."""
        return ".".join(Path(self.path).with_suffix("").parts[1:]).removesuffix(".__init__")


@cache
def sources(folder: str = "src/daitn") -> list[Source]:
    return [
        Source(str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
