"""Names of classes: one name, one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.docs.pages import DOCS

ROOT = DOCS.parent
SIBLINGS = {
    "Model": "a loaded model of each recipe; the recipes do not know each other",
    "Header": "the first bytes of two kinds of file",
    "Reads": "a word of descriptors, and what a language model reads at once",
    "Compared": "a plan of a decision, and a policy of a comparison",
}
"""Names that two classes have, and why nobody takes one for the other."""


def test_no_two_public_classes_have_one_name() -> None:
    found = defaultdict(list)
    for path in sorted((ROOT / "src" / "daitn").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    twice = {name: paths for name, paths in found.items() if len(paths) > 1}
    assert {name: paths for name, paths in twice.items() if name not in SIBLINGS} == {}
    assert set(SIBLINGS) <= set(twice), "an exception is no longer needed"
