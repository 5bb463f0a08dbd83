"""The two record formats, as JSON lines in UTF-8, and reading them with precise error messages.

`qa-pairs/1` is training data: one question on one topic, with its answer and a label for the type
of question. `multiple-choice/1` is test data: one question with four options, one of them right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from daitn.files.atomic import make_folder, replace_file
from daitn.learning.recipe import DataFault, Fault
from daitn.learning.text_file import text_lines
from daitn.objects.errors import DaitnError
from daitn.objects.text import plain_fields, some

__all__ = [
    "OPTIONS",
    "MultipleChoice",
    "QaPair",
    "is_examination",
    "read_choices",
    "read_pairs",
    "write_records",
]


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

    def __post_init__(self) -> None:
        plain_fields(self, "topic", "label")


class MultipleChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `multiple-choice/1`."""

    topic: str
    label: str
    question: str
    options: tuple[str, str, str, str]
    answer: int
    """Index of the right option."""
    member: bool | msgspec.UnsetType = msgspec.UNSET
    """Of a probe: whether data owners train on the question with its right option."""

    def __post_init__(self) -> None:
        plain_fields(self, "topic", "label")


Record = TypeVar("Record", QaPair, MultipleChoice)


def read_pairs(path: Path) -> list[QaPair]:
    """Read a `qa-pairs/1` file.

    Raises `NotFound` if there is no such file, `DataFault` naming file, lines and fields if
    records are malformed or there are none.
    """
    return _read(path, QaPair, "qa-pairs/1", ("topic", "label", "question", "answer"))


def read_choices(path: Path) -> list[MultipleChoice]:
    """Read a `multiple-choice/1` file; raises like `read_pairs`."""
    return _read(path, MultipleChoice, "multiple-choice/1", ("topic", "label", "question"))


def is_examination(path: Path) -> bool:
    """Whether the first line of a file is an item of `multiple-choice/1`."""
    try:
        line = next((line for line in text_lines(path) if line.strip()), "")
        msgspec.json.decode(line, type=MultipleChoice)
    except (DaitnError, msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def write_records(path: Path, records: Iterable[QaPair | MultipleChoice]) -> int:
    """Write records as JSON lines, creating folders as needed; returns their number."""
    make_folder(path.parent)
    lines = [msgspec.json.encode(record) for record in records]
    replace_file(path, b"".join(line + b"\n" for line in lines))
    return len(lines)


@dataclass(frozen=True)
class _Complaint:
    """A complaint about one record, without its content."""

    field: str
    problem: str
    fix: str


def _read(path: Path, kind: type[Record], schema: str, required: tuple[str, ...]) -> list[Record]:
    decoder = msgspec.json.Decoder(kind)
    records: list[Record] = []
    complaints: list[tuple[int, _Complaint]] = []
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = decoder.decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            problem = str(error) if isinstance(error, msgspec.DecodeError) else "is not JSON"
            fix = f"write one {schema} record"
            complaints.append((number, _Complaint(_named_field(problem), problem, fix)))
            continue
        complaint = _complaint(record, required)
        if complaint is None:
            records.append(record)
        else:
            complaints.append((number, complaint))
    if complaints:
        raise _malformed(path, complaints)
    if not records:
        raise DataFault(
            Fault.NO_RECORDS,
            f"{path} has no records",
            field=str(path),
            fix=f"write {schema} lines",
        )
    return records


def _complaint(record: QaPair | MultipleChoice, required: tuple[str, ...]) -> _Complaint | None:
    for name in required:
        if not str(getattr(record, name)).strip():
            return _Complaint(name, "is empty", "fill it in or drop the line")
    if isinstance(record, MultipleChoice):
        if not 0 <= record.answer < OPTIONS:
            return _Complaint(
                "answer", "is not the index of an option", f"give an index from 0 to {OPTIONS - 1}"
            )
        for index, option in enumerate(record.options):
            if not option.strip():
                return _Complaint(f"options[{index}]", "is empty", "write the option")
    return None


def _named_field(problem: str) -> str:
    """The field in msgspec's message: a path (`- at $.answer`) or a missing field's name."""
    if "`$." in problem:
        return problem.split("`$.", 1)[1].rstrip("`")
    if "missing required field `" in problem:
        return problem.split("missing required field `", 1)[1].rstrip("`")
    return "record"


def _malformed(path: Path, complaints: list[tuple[int, _Complaint]]) -> DataFault:
    """One error for all complaints, shortened to a readable length."""
    problems = some(
        (f"line {line}, field {each.field}: {each.problem}" for line, each in complaints),
        between="; ",
    )
    first_line, first = complaints[0]
    return DataFault(
        Fault.MALFORMED,
        f"{path}, {problems}",
        {"problems": len(complaints)},
        field=first.field,
        fix=f"{first.fix} at line {first_line} of {path}",
    )
