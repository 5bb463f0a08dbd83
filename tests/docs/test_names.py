"""Names: one name, one thing; and each thing once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

from tests.docs.pages import DOCS

ROOT = DOCS.parent
SIBLINGS = {
    "Model": "a loaded model of each recipe; the recipes do not know each other",
    "Header": "the first bytes of two kinds of file",
    "Reads": "a word of descriptors, and what a language model reads at once",
    "Compared": "a plan of a decision, and a policy of a comparison",
}
"""Names that two classes have, and why nobody takes one for the other."""
ALONE = "predict.py"
"""Written beside an exported model, where nothing of this project is installed."""
OF_TWO_MACHINES = "Commands"
"""Tuples of the commands of one state machine: each has its own `Command`."""


K = TypeVar("K")


class Source(NamedTuple):
    path: str
    lines: list[str]
    body: list[ast.stmt]


@cache
def sources() -> list[Source]:
    return [
        Source(str(path.relative_to(ROOT)), text.splitlines(), ast.parse(text).body)
        for path in sorted((ROOT / "src" / "daitn").rglob("*.py"))
        for text in [path.read_text()]
    ]


def twice(found: Mapping[K, list[str]]) -> dict[K, list[str]]:
    return {key: paths for key, paths in found.items() if len(paths) > 1}


def test_no_two_public_classes_have_one_name() -> None:
    found = defaultdict(list)
    for path, _, body in sources():
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    doubled = twice(found)
    assert {name: paths for name, paths in doubled.items() if name not in SIBLINGS} == {}
    assert set(SIBLINGS) <= set(doubled), "an exception is no longer needed"


def test_no_type_is_defined_twice() -> None:
    """An alias such as `Floats = NDArray[np.float64]` stands in one module, which others import."""
    found = defaultdict(list)
    for path, _, body in sources():
        for node in body:
            match node:
                case ast.Assign([ast.Name(name)], ast.Subscript() as value):
                    if name[0].isupper() and not name.isupper() and name != OF_TWO_MACHINES:
                        found[name, ast.unparse(value)].append(path)
    assert twice(found) == {}


def test_no_constant_is_stated_twice() -> None:
    """Of two constants with one name, value and meaning, a change of one would forget the other."""
    found = defaultdict(list)
    for path, _, body in sources():
        for node, after in pairwise(body):
            match node, after:
                case (
                    ast.Assign([ast.Name(name)], ast.Constant(value)),
                    ast.Expr(ast.Constant(str(meaning))),
                ):
                    found[name, value, meaning].append(path)
    assert twice(found) == {}


def test_no_function_is_written_twice() -> None:
    """Not even under two names."""
    found = defaultdict(list)
    for path, lines, body in sources():
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ALONE not in path:
                head, *rest = lines[node.lineno - 1 : node.end_lineno]
                found[head.partition("(")[2], tuple(rest)].append(f"{path}: {node.name}")
    assert twice(found) == {}
