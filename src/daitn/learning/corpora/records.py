"""The two record formats, as JSON lines in UTF-8, and reading them with precise complaints.

`qa-pairs/1` is training data: one question about one topic, with its answer and a label that
says which type of question it is. `multiple-choice/1` is test data: one question with four
options, one of them right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from daitn.identity.files import make_folder, replace_file
from daitn.objects.errors import InvalidInput, NotFound

__all__ = ["OPTIONS", "MultipleChoice", "QaPair", "read_choices", "read_pairs", "write_records"]

OPTIONS = 4
"""Options of a `multiple-choice/1` item; guessing scores 1 / OPTIONS."""


class QaPair(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `qa-pairs/1`."""

    topic: str
    """What the question is about, for instance a disease."""
    label: str
    """The type of the question, for instance `treatment`."""
    question: str
    answer: str


class MultipleChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `multiple-choice/1`."""

    topic: str
    label: str
    question: str
    options: tuple[str, str, str, str]
    answer: int
    """Index of the right option."""


Record = TypeVar("Record", QaPair, MultipleChoice)


def read_pairs(path: Path) -> list[QaPair]:
    """Read a `qa-pairs/1` file.

    Raises `NotFound` if there is no such file, `InvalidInput` naming file, line and field if a
    record is malformed or the file is empty.
    """
    return _read(path, QaPair, "qa-pairs/1", ("topic", "label", "question", "answer"))


def read_choices(path: Path) -> list[MultipleChoice]:
    """Read a `multiple-choice/1` file; raises as `read_pairs` does."""
    choices = _read(path, MultipleChoice, "multiple-choice/1", ("topic", "label", "question"))
    for number, choice in enumerate(choices, start=1):
        if not 0 <= choice.answer < OPTIONS:
            fix = f"give an index from 0 to {OPTIONS - 1}"
            raise _malformed(path, number, "answer", f"is {choice.answer}", fix)
        for index, option in enumerate(choice.options):
            if not option.strip():
                raise _malformed(path, number, f"options[{index}]", "is empty", "write the option")
    return choices


def write_records(path: Path, records: Iterable[QaPair | MultipleChoice]) -> int:
    """Write records as JSON lines, creating folders as needed; return how many there were."""
    make_folder(path.parent)
    lines = [msgspec.json.encode(record) for record in records]
    replace_file(path, b"".join(line + b"\n" for line in lines))
    return len(lines)


def _read(path: Path, kind: type[Record], schema: str, required: tuple[str, ...]) -> list[Record]:
    decoder = msgspec.json.Decoder(kind)
    records: list[Record] = []
    for number, line in _lines(path):
        try:
            record = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _malformed(
                path, number, _named_field(str(error)), str(error), f"write one {schema} record"
            ) from error
        for name in required:
            if not str(getattr(record, name)).strip():
                raise _malformed(path, number, name, "is empty", "fill it in or drop the line")
        records.append(record)
    if not records:
        raise InvalidInput(f"{path} has no records", field=str(path), fix=f"write {schema} lines")
    return records


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every line, counted from 1. A blank line is a malformed record, not a pause."""
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}", field=str(path), fix="check the path") from error


def _named_field(problem: str) -> str:
    """The field in msgspec's message: a path (`- at $.answer`) or a missing field's name."""
    if "`$." in problem:
        return problem.split("`$.", 1)[1].rstrip("`")
    if "missing required field `" in problem:
        return problem.split("missing required field `", 1)[1].rstrip("`")
    return "record"


def _malformed(path: Path, line: int, name: str, problem: str, fix: str) -> InvalidInput:
    return InvalidInput(
        f"{path}, line {line}, field {name}: {problem}",
        field=name,
        fix=f"{fix} at line {line} of {path}",
    )
