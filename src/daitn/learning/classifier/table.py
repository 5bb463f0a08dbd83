"""Reading `table/1`: a CSV file with a header, numeric feature columns and one label column.

An empty cell (or `nan`) is a missing value; any other cell that is no finite number is an error.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daitn.learning.recipe import DataProfile
from daitn.objects.errors import InvalidInput, NotFound

__all__ = ["LABEL", "Table", "profile", "read_table"]

LABEL = "label"
"""Name of the column whose labels are published."""
_MAX_LABELS = 1000
"""A histogram is published: a column with more values is no label, and may name its records."""
_SHOWN_COLUMNS = 5


@dataclass(frozen=True, eq=False)
class Table:
    """A data set in memory. Missing values are NaN."""

    columns: tuple[str, ...]
    """Names of the feature columns, in the file's order."""
    features: NDArray[np.float32]
    labels: tuple[str, ...]

    def arranged(self, columns: tuple[str, ...], path: Path) -> Table:
        """The same data with the feature columns in this order.

        Raises `InvalidInput` naming the columns that one side has and the other has not.
        """
        if columns == self.columns:
            return self
        missing = sorted(set(columns) - set(self.columns))
        unexpected = sorted(set(self.columns) - set(columns))
        if missing or unexpected:
            raise InvalidInput(
                f"{path} has other columns than the model has learned from"
                + _listed("missing", missing)
                + _listed("unexpected", unexpected),
                field="columns",
                fix="give the columns the same names at every site, and drop the others",
            )
        order = [self.columns.index(name) for name in columns]
        return Table(columns=columns, features=self.features[:, order], labels=self.labels)


def read_table(path: Path, label: str) -> Table:
    """Read a file whose label is in column `label`.

    Raises `NotFound` if there is no such file, `InvalidInput` naming file, line and column if it
    is malformed or has no records.
    """
    rows = _rows(path)
    header = _checked_header(path, next(rows, (1, []))[1])
    if label not in header:
        raise InvalidInput(
            f"{path} has no column {label!r}; its columns: {_some(header)}",
            field="model.config.label",
            fix="name the column that holds the label",
        )
    at = header.index(label)
    columns = (*header[:at], *header[at + 1 :])
    features: list[NDArray[np.float32]] = []
    labels: list[str] = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise _malformed(path, line, "record", f"{len(cells)} cells, not {len(header)}")
        labels.append(_checked_label(path, line, label, cells.pop(at)))
        features.append(_numbers(path, line, columns, cells))
    if not features:
        raise InvalidInput(f"{path} has no records", field=str(path), fix="add some below a header")
    return Table(columns=columns, features=np.stack(features), labels=tuple(labels))


def profile(path: Path) -> DataProfile:
    """Describe a file. Its label is the column called `label`, or the last one if none is.

    Raises as `read_table` does, and `InvalidInput` if the label has too many values to be one.
    """
    header = _checked_header(path, next(_rows(path), (1, []))[1])
    table = read_table(path, LABEL if LABEL in header else header[-1])
    labels = Counter(table.labels)
    if len(labels) > _MAX_LABELS:
        raise InvalidInput(
            f"{path} has {len(labels)} different labels; at most {_MAX_LABELS} make classes",
            field=LABEL,
            fix="put the class into a column called `label`",
        )
    usable = int(np.isfinite(table.features).all(axis=1).sum())
    return DataProfile(
        samples=len(table.labels),
        labels=dict(sorted(labels.items())),
        quality=usable / len(table.labels),
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every record that is not blank, the header first."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}", field=str(path), fix="check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is no CSV file: {error}", field=str(path), fix="write CSV in UTF-8"
        ) from error


def _checked_header(path: Path, header: list[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in header)
    if len(names) < 2:
        raise _malformed(path, 1, "header", "names fewer than two columns")
    for name, times in Counter(names).items():
        if times > 1 or not name:
            raise _malformed(path, 1, "header", f"column {name!r} is named {times} times")
    return names


def _checked_label(path: Path, line: int, column: str, cell: str) -> str:
    if not cell.strip():
        raise _malformed(path, line, column, "is empty")
    return cell.strip()


def _numbers(
    path: Path, line: int, columns: tuple[str, ...], cells: list[str]
) -> NDArray[np.float32]:
    try:
        numbers = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        numbers = np.array(
            [_number(path, line, *named) for named in zip(columns, cells, strict=True)], np.float64
        )
    too_large = np.abs(numbers) > np.finfo(np.float32).max
    if too_large.any():
        column = columns[int(too_large.argmax())]
        raise _malformed(path, line, column, "is too large for a 32-bit float")
    return numbers.astype(np.float32)


def _number(path: Path, line: int, column: str, cell: str) -> float:
    if not cell.strip():
        return math.nan
    try:
        return float(cell)
    except ValueError:
        # The cell is private data: it is not repeated.
        raise _malformed(path, line, column, "is not a number") from None


def _listed(what: str, names: list[str]) -> str:
    return f"; {what}: {_some(names)}" if names else ""


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN_COLUMNS} more" if len(every) > _SHOWN_COLUMNS else ""
    return ", ".join(every[:_SHOWN_COLUMNS]) + more


def _malformed(path: Path, line: int, column: str, problem: str) -> InvalidInput:
    return InvalidInput(
        f"{path}, line {line}, field {column}: {problem}",
        field=column,
        fix=f"correct line {line} of {path}, or drop it",
    )
