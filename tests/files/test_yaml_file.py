"""What people write into YAML files is taken as written, or refused with field and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from daitn.files.yaml_file import read_yaml
from daitn.objects.errors import InvalidInput


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def refusal(file: Path, text: str) -> InvalidInput:
    file.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_yaml(file, "policy")
    assert refused.value.fix
    return refused.value


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        (r'"\ud800"', "policy", 1),
        ('a: 1\nowner: "x\\ud800"', "owner", 2),
        ('a:\n- b\n- c: "\\udfff"', "a[1].c", 3),
        ('a:\n  "\\ud800": 1', "a", 2),
        (r'{"a": "\ud83d\ude00"}', "a", 1),
    ],
)
def test_text_that_nothing_can_store_is_refused(
    file: Path, text: str, field: str, line: int
) -> None:
    error = refusal(file, text)
    assert error.field == field
    assert f"line {line} of the policy {file}" in error.problem


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        ("owners: [acme]\nhours: [any]\nowners: [any]", "owners", 3),
        ("limits:\n  visits_per_day: 1\n  'visits_per_day': 9", "limits.visits_per_day", 3),
        ("a: [{b: 1}, {1: 1, 0x1: 2}]", "a[1].0x1", 1),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a", "c.<<", 4),
    ],
)
def test_a_key_that_occurs_twice_is_refused(file: Path, text: str, field: str, line: int) -> None:
    error = refusal(file, text)
    assert error.field == field
    assert "is stated on line" in error.problem
    assert f"line {line} of the policy {file}" in error.problem


def test_aliases_repeat_parts_within_bounds(file: Path) -> None:
    file.write_text("a: &a {b: [1, 2], c: 3}\nd: *a\ne:\n  <<: *a\n  c: 4\n")
    part = {"b": [1, 2], "c": 3}
    assert read_yaml(file, "policy") == {"a": part, "d": part, "e": {"b": [1, 2], "c": 4}}


@pytest.mark.parametrize("part", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_of_aliases_that_explode_are_refused(file: Path, part: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 100):
        repeated = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {part.format(repeated)}")
    assert "more than 100,000 values" in refusal(file, "\n".join(lines)).problem


def test_an_alias_of_what_it_is_part_of_is_refused(file: Path) -> None:
    error = refusal(file, "a: &a\n  b: [1, *a]")
    assert error.field == "a.b[1]"
    assert "contains itself" in error.problem


def test_a_long_file_without_aliases_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daitn.files.yaml_file._MOST_VALUES", 100)
    file.write_text(f"[{','.join(['1'] * 101)}]")
    assert read_yaml(file, "policy") == [1] * 101


def test_an_empty_file_is_told_and_taken_for_nothing_else(file: Path) -> None:
    for text in ("", " \n\n"):
        file.write_text(text)
        with pytest.raises(InvalidInput, match="is empty"):
            read_yaml(file, "policy")
    file.write_text("{}\n")
    assert read_yaml(file, "policy") == {}
    file.write_text("# all as usual\n")
    assert read_yaml(file, "policy") is None
