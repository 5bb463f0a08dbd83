"""`daitn data check`: what a site would publish of a file, before it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenes.command_line import daitn

pytestmark = pytest.mark.processes

ROWS = "".join(f"{('no', 'yes')[n % 2]},{n},{n / 2},note {n}\n" for n in range(40))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text(f"diagnosis,patient,größe,notes\n{ROWS}")
    return path


def test_all_that_is_wrong_is_told_at_once_with_what_to_do(table: Path) -> None:
    ended = daitn("data", "check", str(table))
    assert ended.returncode == 2
    told = " ".join(ended.stderr.split())
    assert "Traceback" not in told
    for words in ("no column is called label", "columns 1, 4 are text", "label: its name", "notes"):
        assert words in told
    assert told.count("no column is called label") == 1
    assert "note 7" not in told


def test_what_would_be_published_is_shown(table: Path) -> None:
    options = ["--label", "diagnosis", "--ignore", "notes"]
    ended = daitn("data", "check", str(table), *options)
    assert ended.returncode == 0, ended.stderr
    shown = " ".join(ended.stdout.split())
    for words in (
        "records 40",
        "every record is usable",
        "no: 20, yes: 20",
        "patient, größe",
        "`ignore` any id",
    ):
        assert words in shown
    options += ["--ignore", "patient", "--json"]
    told = json.loads(daitn("data", "check", str(table), *options).stdout)
    assert told["published"]["labels"] == {"no": 20, "yes": 20}
    assert told["columns"] == ["größe"]
    assert told["published"]["columns"] == 1
    assert told["remarks"] == []
    exam = [*options, "--test"]
    published = json.loads(daitn("data", "check", str(table), *exam).stdout)["published"]
    assert published["items"] == 40


def test_records_of_questions_are_checked_too(tmp_path: Path) -> None:
    record = {"topic": "flu", "label": "cause", "question": "Why?", "answer": "It is a virus"}
    lines = [json.dumps(record | {"answer": f"It is virus {n}"}) + "\r\n\r\n" for n in range(12)]
    (tmp_path / "qa.jsonl").write_text("\ufeff" + "".join(lines))
    told = json.loads(daitn("data", "check", str(tmp_path / "qa.jsonl"), "--json").stdout)
    assert told["published"]["labels"] == {"cause": 10}
    assert told["published"]["sketch"]["texts"] == 1
    ended = daitn("data", "check", str(tmp_path / "qa.jsonl"), "--test")
    assert ended.returncode == 2
    assert "line 1" in ended.stderr
    assert "virus" not in ended.stderr


def test_labels_of_few_records_are_not_published(tmp_path: Path) -> None:
    rows = "".join(f"{x},{'rare' if x < 4 else 'often'}\n" for x in range(40))
    (tmp_path / "d.csv").write_text(f"x,label\n{rows}")
    shown = daitn("data", "check", str(tmp_path / "d.csv")).stdout
    published, _, private = shown.partition("not published")
    assert "often: 35" in published
    assert "leaves with a model" in published
    assert "rare" not in published
    assert "rare: 4" in private
    told = json.loads(daitn("data", "check", str(tmp_path / "d.csv"), "--json").stdout)
    assert told["published"]["labels"] == {"often": 35}
    ended = daitn("data", "check", str(tmp_path / "d.csv"), "--least-records", "41")
    assert ended.returncode == 2
    assert "fewer than 41 records" in ended.stderr


@pytest.mark.parametrize("name", ["absent.csv", "a.parquet", "folder.csv"])
def test_what_cannot_be_read_is_told_with_a_fix(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    ended = daitn("data", "check", str(tmp_path / name))
    assert ended.returncode == 2
    assert "fix" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_equal_records_count_once(tmp_path: Path, table: Path) -> None:
    record = {"topic": "flu", "label": "cause", "question": "Why?", "answer": "It is a virus"}
    (tmp_path / "qa.jsonl").write_text((json.dumps(record) + "\n") * 50)
    ended = daitn("data", "check", str(tmp_path / "qa.jsonl"))
    assert ended.returncode == 2
    assert "fewer than 10 records" in ended.stderr
    with table.open("a") as file:
        file.write("hiv,7,3.5,note 41\n" * 50)
    options = ["--label", "diagnosis", "--ignore", "notes"]
    shown = " ".join(daitn("data", "check", str(table), *options).stdout.split())
    assert "records 40" in shown
    assert "hiv: 50 (1 differ)" in shown


def test_an_examination_is_recognised(tmp_path: Path) -> None:
    item = {"topic": "t", "label": "l", "question": "q", "options": list("abcd"), "answer": 1}
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for _ in range(30)))
    ended = daitn("data", "check", str(path))
    told = " ".join(ended.stderr.split())
    assert ended.returncode == 2
    assert told.endswith("this looks like multiple-choice/1 fix use --test"), told
    assert daitn("data", "check", str(path), "--test").returncode in (0, 2)


@pytest.mark.parametrize(
    ("rows", "fix"),
    [
        ("outcome,a\nx,1\ny,2\n", "if outcome is not the label, ignore it or encode it as"),
        ("label,a\nx,1\n,2\n", "give each record a label, or remove the record"),
        ("label,a\nx,1\ny,2\nx,?\n", "correct a; a missing number is an empty cell"),
    ],
)
def test_advice_fits_the_column(tmp_path: Path, rows: str, fix: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(rows)
    ended = daitn("data", "check", str(path))
    assert fix in " ".join(ended.stderr.split())
