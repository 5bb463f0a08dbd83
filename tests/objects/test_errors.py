"""Errors are told apart by their class: their words may change."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import daitn

SOURCES = Path(daitn.__file__).parent


def _is_text(node: ast.AST) -> bool:
    """Whether it is an error's words, or made of them alone."""
    match node:
        case ast.Attribute(attr="problem"):
            return True
        case ast.Call(func=ast.Attribute(value=text, attr="lower" | "casefold" | "strip")):
            return _is_text(text)
    return False


def _decides(node: ast.AST) -> bool:
    """Whether it compares the words of an error, or searches them."""
    match node:
        case ast.Compare(left=left, comparators=others):
            return any(map(_is_text, (left, *others)))
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[_, text, *_]):
            return _is_text(text)
        case ast.Call(func=ast.Attribute(value=text, attr="startswith" | "endswith" | "find")):
            return _is_text(text)
    return False


@pytest.mark.parametrize(
    ("line", "decides"),
    [
        ('"clock" in error.problem', True),
        ("error.problem != unserved(key).problem", True),
        ('"clock" in error.problem.lower()', True),
        ('error.problem.startswith("nobody")', True),
        ('re.search("clock", error.problem)', True),
        ("isinstance(error, ClocksDiffer)", False),
        ("log.error(error.problem)", False),
    ],
)
def test_what_decides_by_words_is_recognised(line: str, decides: bool) -> None:
    assert any(map(_decides, ast.walk(ast.parse(line)))) is decides


def test_no_code_decides_by_the_words_of_an_error() -> None:
    found = [
        f"{file.relative_to(SOURCES)}:{node.lineno}"
        for file in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.expr) and _decides(node)
    ]
    assert not found
