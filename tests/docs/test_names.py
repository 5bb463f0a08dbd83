"""Names: one name, one thing; and each thing once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

from tests.docs.sources import ALONE, sources

OF_TWO_MACHINES = "Commands"
"""Tuples of the commands of one state machine: each has its own `Command`."""
OF_TWO_RECIPES = "WEIGHTS"
"""Each recipe names its own parts."""


_SHORT = 12
"""Characters of a value that two modules may state by chance."""
K = TypeVar("K")


def twice(found: Mapping[K, list[str]]) -> dict[K, list[str]]:
    return {key: paths for key, paths in found.items() if len(paths) > 1}


def test_no_two_public_classes_have_one_name() -> None:
    found = defaultdict(list)
    for path, tree in [each for each in sources() if not each.path.endswith(ALONE)]:
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    assert twice(found) == {}


def test_no_type_is_defined_twice() -> None:
    """An alias such as `Floats = NDArray[np.float64]` stands in one module, which others import."""
    found = defaultdict(list)
    for path, tree in sources():
        for node in tree.body:
            match node:
                case ast.Assign([ast.Name(name)], ast.Subscript() as value):
                    if name[0].isupper() and not name.isupper() and name != OF_TWO_MACHINES:
                        found[name, ast.unparse(value)].append(path)
    assert twice(found) == {}


def test_no_constant_is_stated_twice() -> None:
    """Of two constants with one name and value, a change of one would forget the other. Numbers and
    short texts must have one meaning, too: many things are 60 s."""
    found = defaultdict(list)
    for path, tree in sources():
        for node, after in pairwise([*tree.body, ast.Pass()]):
            match node:
                case ast.Assign([ast.Name(name)], ast.Constant(value)) | ast.AnnAssign(
                    ast.Name(name), _, ast.Constant(value)
                ) if name != OF_TWO_RECIPES:
                    meaning = ast.unparse(after) if isinstance(after, ast.Expr) else ""
                    if isinstance(value, str) and len(value) > _SHORT:
                        meaning = ""
                    elif not meaning:
                        continue
                    found[name.lstrip("_"), value, meaning].append(path)
    assert twice(found) == {}
