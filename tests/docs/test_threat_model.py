"""The threat model's claims have tests, which exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "threat-model.md"
_TEST = re.compile(r"\[`(test_\w+)`\]\(([^)]+)\)")


def claims() -> list[str]:
    """The rows of the tables whose last column names tests."""
    rows, within = [], False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            within = False
        elif line.endswith("| tests |"):
            within = True
        elif within and not line.startswith("|---"):
            rows.append(line)
    return rows


@pytest.mark.parametrize("claim", claims(), ids=lambda row: row.split("|")[1].strip()[:60])
def test_a_claim_names_tests_that_exist(claim: str) -> None:
    named = _TEST.findall(claim.rsplit("|", 2)[1])
    assert named, "a claim without a test is a hope"
    for name, path in named:
        file = (PAGE.parent / path).resolve()
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        tests = {
            one.name for one in ast.walk(ast.parse(file.read_text())) if isinstance(one, functions)
        }
        assert name in tests, f"{file.name} has no {name}"


def test_every_attack_that_once_worked_has_a_line() -> None:
    numbers = re.findall(r"^\| (\d+) \|", PAGE.read_text(), flags=re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, 18))
