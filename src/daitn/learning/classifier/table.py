"""Reading `table/1`: a CSV file with a header, numeric feature columns and one label column.

An empty cell (or `nan`) is a missing value. Any other cell that is not a finite number is an error.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daitn.learning.classifier.complaints import NO_LABEL, NO_NUMBER, Complaints, some_columns
from daitn.learning.classifier.layout import LABEL, Layout, label_column, lay_out
from daitn.learning.recipe import DataFault, DataProfile, Fault, Selection
from daitn.learning.text_file import text_lines
from daitn.objects.text import plain

__all__ = ["LABEL", "Table", "different_rows", "profile", "read_table"]

_MAX_LABELS = 1000
"""A histogram is published. A column with more values is not a label, and may identify its
records."""
_TOO_LARGE = "cannot be held by a 32-bit float"
_LARGEST = np.finfo(np.float32).max
_NO_SELECTION = Selection()


@dataclass(frozen=True, eq=False)
class Table:
    """A data set in memory. Missing values are NaN."""

    columns: tuple[str, ...]
    """Names of the feature columns, in the file's order."""
    features: NDArray[np.float32]
    labels: tuple[str, ...]

    def different(self) -> Counter[str]:
        """Label histogram of distinct records."""
        once = different_rows(self.features, self.labels)
        return Counter(self.labels[at] for at in once)

    def of_enough(self, least_records: int) -> Table:
        """The records whose label has at least this many distinct records. Whether a site has a
        record of a rare label must show neither in what a model learns from the others nor in
        whether it can."""
        enough = {label for label, count in self.different().items() if count >= least_records}
        if enough.issuperset(self.labels):
            return self
        kept = [at for at, label in enumerate(self.labels) if label in enough]
        return Table(
            columns=self.columns,
            features=self.features[kept],
            labels=tuple(self.labels[at] for at in kept),
        )

    def arranged(self, columns: tuple[str, ...], path: Path) -> Table:
        """The same data with its feature columns in this order.

        Raises `DataFault` naming the columns that only one side has.
        """
        if columns == self.columns:
            return self
        missing = sorted(set(columns) - set(self.columns))
        unexpected = sorted(set(self.columns) - set(columns))
        if missing or unexpected:
            raise DataFault(
                Fault.OTHER_COLUMNS,
                f"the columns of {path} differ from those that the model was trained on"
                + _listed("missing", missing)
                + _listed("unexpected", unexpected),
                field="columns",
                fix="give the columns the same names at every site; add a missing one, empty where "
                "its values are not known, and have the site `ignore` the others",
            )
        order = [self.columns.index(name) for name in columns]
        return Table(columns=columns, features=self.features[:, order], labels=self.labels)


def different_rows(features: NDArray[np.float32], labels: Sequence[str] = ()) -> list[int]:
    """The first of each group of identical rows, including the label if there are labels."""
    rows = np.where(np.isnan(features), np.float32(np.nan), features + np.float32(0.0))
    first: dict[tuple[str, bytes], int] = {}
    for at, row in enumerate(np.ascontiguousarray(rows)):
        digest = hashlib.blake2b(row, digest_size=16).digest()
        first.setdefault((labels[at] if labels else "", digest), at)
    return list(first.values())


def read_table(path: Path, label: str = LABEL, selection: Selection = _NO_SELECTION) -> Table:
    """Read a file with the label that a model of `label` learns, without the records of labels that
    have fewer distinct ones than the selection demands.

    Raises as `_whole_table`, and `DataFault` if no records are left.
    """
    table = _whole_table(path, label, selection).of_enough(selection.least_records)
    if not table.labels:
        raise DataFault(
            Fault.NO_RECORDS,
            f"no label in {path} has {selection.least_records} different records",
            field="records",
            fix="add records",
        )
    return table


def _whole_table(path: Path, label: str, selection: Selection) -> Table:
    """Raises `NotFound` if there is no such file, and `InvalidInput` with all problems if it is
    malformed or has no records."""
    rows = _rows(path)
    layout, complaints = lay_out(path, next(rows, (1, []))[1], label, selection)
    features: list[NDArray[np.float32]] = []
    labels: list[str] = []
    for line, cells in rows:
        if len(cells) != layout.width:
            complaints.cell(line, -1, f"should have {layout.width} cells")
            continue
        if layout.label >= 0:
            labels.append(plain(cells[layout.label]))
            if not labels[-1]:
                complaints.cell(line, layout.label, NO_LABEL)
        features.append(_numbers(line, layout, cells, complaints))
    if not features and not complaints:
        complaints.add(
            "there are no records", "records", "add some below the header", Fault.NO_RECORDS
        )
    complaints.fail()
    columns = tuple(complaints.names[at] for at in layout.features)
    return Table(columns=columns, features=np.stack(features), labels=tuple(labels))


def profile(path: Path, selection: Selection = _NO_SELECTION) -> DataProfile:
    """Describe a file. Its label is the column named in the selection, or else `label`.

    Raises as `read_table` does, and `InvalidInput` if the label has too many values to be one.
    """
    table = _whole_table(path, LABEL, selection)
    labels = Counter(table.labels)
    if len(labels) > _MAX_LABELS:
        raise DataFault(
            Fault.TOO_MANY_LABELS,
            f"{path} has {len(labels)} different labels; at most {_MAX_LABELS} can be classes",
            {"labels": len(labels)},
            field=label_column(LABEL, selection),
            fix="name the column with the class: `label: its name`",
        )
    used = table.of_enough(selection.least_records)
    return DataProfile(
        samples=len(used.labels),
        labels=dict(sorted(labels.items())),
        different=dict(sorted(table.different().items())),
        quality=_quality(used.features),
        columns=table.columns,
        remarks=tuple(_remarks(table)),
    )


def _quality(features: NDArray[np.float32]) -> float:
    """Share of records without a missing value. Columns that are empty throughout do not count, as
    models learn from the others."""
    present = np.isfinite(features)
    filled = present[:, present.any(axis=0)]
    return float(filled.all(axis=1).mean()) if filled.size else 0.0


def _remarks(table: Table) -> Iterator[str]:
    """What is allowed, but may be unintended."""
    if equal := [" and ".join(labels) for labels in _equal_as_numbers(table.labels)]:
        yield f"different classes, though equal as numbers: {some_columns(equal)}"
    present = np.isfinite(table.features)
    empty = [name for name, has in zip(table.columns, present.T, strict=True) if not has.any()]
    if empty:
        yield f"empty throughout, so that models learn nothing from it here: {some_columns(empty)}"
    constant = [
        name
        for name, values in zip(table.columns, table.features.T, strict=True)
        if len(np.unique(values[np.isfinite(values)])) == 1
    ]
    if constant:
        yield (
            "the same value in every record, so that models learn nothing from it here; if it "
            f"stands for a missing one, leave the cells empty: {some_columns(constant)}"
        )
    numbered = [
        name
        for name, values in zip(table.columns, table.features.T, strict=True)
        if _looks_like_numbering(values)
    ]
    if numbered:
        yield f"a different whole number in every record; `ignore` any id: {some_columns(numbered)}"


def _equal_as_numbers(labels: Iterable[str]) -> Iterator[list[str]]:
    """Labels that are one number in several spellings, such as `0` and `0.0`."""
    spellings = defaultdict[float, list[str]](list)
    for label in sorted(set(labels)):
        with suppress(ValueError):
            spellings[float(label)].append(label)
    return (same for same in spellings.values() if len(same) > 1)


def _looks_like_numbering(values: NDArray[np.float32]) -> bool:
    whole = bool(np.isfinite(values).all()) and bool((values == np.floor(values)).all())
    return whole and len(values) > 1 and len(np.unique(values)) == len(values)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every record that is not blank, including the header."""
    reader = csv.reader(text_lines(path), strict=True)
    try:
        for cells in reader:
            if cells and not (len(cells) == 1 and not cells[0].strip()):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataFault(
            Fault.NO_CSV,
            f"{path} is not a CSV file: {error}, in line {reader.line_num}",
            field=str(path),
            fix="write CSV in UTF-8",
        ) from error


def _numbers(
    line: int, layout: Layout, cells: list[str], complaints: Complaints
) -> NDArray[np.float32]:
    chosen = [cells[at] for at in layout.features]
    try:
        if "_" in "".join(chosen):
            raise ValueError("Python reads 1_0 as ten")
        numbers = np.fromiter(map(float, chosen), np.float64, len(chosen))
        complaints.numeric(layout.features)
    except ValueError:
        each = zip(layout.features, chosen, strict=True)
        numbers = np.array([_number(line, at, cell, complaints) for at, cell in each], np.float64)
    for position in np.flatnonzero(np.abs(numbers) > _LARGEST):
        complaints.cell(line, layout.features[position], _TOO_LARGE)
        numbers[position] = math.nan
    return numbers.astype(np.float32)


def _number(line: int, column: int, cell: str, complaints: Complaints) -> float:
    if not plain(cell):
        return math.nan
    try:
        number = float(cell if "_" not in cell else "")
    except ValueError:
        complaints.cell(line, column, NO_NUMBER)
        return math.nan
    complaints.numeric((column,))
    return number


def _listed(what: str, names: list[str]) -> str:
    return f"; {what}: {some_columns(names)}" if names else ""
