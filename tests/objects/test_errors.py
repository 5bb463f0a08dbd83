"""Errors are told apart by their class: their words may change."""

from __future__ import annotations

import ast
from pathlib import Path

import daitn

SOURCES = Path(daitn.__file__).parent


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "problem"


def _decides(node: ast.AST) -> bool:
    """Whether it compares the words of an error, or searches them."""
    match node:
        case ast.Compare(left=left, comparators=others):
            return any(map(_is_text, (left, *others)))
        case ast.Call(func=ast.Attribute(value=text, attr="startswith" | "endswith" | "find")):
            return _is_text(text)
    return False


def test_no_code_decides_by_the_words_of_an_error() -> None:
    found = [
        f"{file.relative_to(SOURCES)}:{node.lineno}"
        for file in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.expr) and _decides(node)
    ]
    assert not found
