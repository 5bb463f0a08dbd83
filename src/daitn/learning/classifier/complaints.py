"""All problems of a table, collected before they are reported.

The text of a problem names positions only: it may leave the site, and if somebody forgot the
header, the first line may be a record. Names of columns stand in the fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daitn.learning.recipe import DataFault, Fault
from daitn.objects.text import some

__all__ = ["NO_LABEL", "NO_NUMBER", "Complaints", "some_columns"]

NO_NUMBER = "cannot be read as a number"
NO_LABEL = "should not be empty"
_SHOWN = 20
_SHOWN_COLUMNS = 10


@dataclass
class _Cells:
    """Cells of one column with the same problem."""

    first_line: int
    count: int = 0


@dataclass
class Complaints:
    """Complaints about one file with these columns."""

    path: Path
    names: Sequence[str] = ()
    no_label: bool = False
    """The label's column is unknown: it may be one of those with text."""
    _general: list[tuple[str, str, str]] = field(default_factory=list)
    """Problem, field and fix of each."""
    _fault: Fault = Fault.MALFORMED
    """Fault of the last general complaint."""
    _cells: dict[tuple[int, str], _Cells] = field(default_factory=dict)
    _numbers: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self._general or self._cells)

    def add(self, problem: str, name: str, fix: str, fault: Fault = Fault.MALFORMED) -> None:
        """Add a complaint about the file as a whole."""
        self._general.append((problem, name, fix))
        self._fault = fault

    def cell(self, line: int, column: int, problem: str) -> None:
        """Add a complaint about a cell, worded to follow "cells that"; column -1 means its
        record."""
        cells = self._cells.setdefault((column, problem), _Cells(line))
        cells.count += 1

    def numeric(self, columns: Sequence[int]) -> None:
        """Note that these columns contain numbers, not text."""
        if len(self._numbers) < len(self.names):
            self._numbers.update(columns)

    def fail(self) -> None:
        """Raise `DataFault` with all complaints, if there are any."""
        text = self._text_columns()
        every = [*self._general]
        if text:
            every.append(self._about_text([column for column, _ in text]))
        every += [self._about_cells(*key) for key in self._cells if key not in text]
        if not every:
            return
        shown = every[:_SHOWN]
        problems = some((problem for problem, _, _ in every), _SHOWN, between="; ")
        raise DataFault(
            self._fault if len(every) == len(self._general) == 1 else Fault.MALFORMED,
            f"{self.path}: {problems}",
            {"problems": len(every)},
            field=", ".join(dict.fromkeys(name for _, name, _ in shown)),
            fix="; ".join(dict.fromkeys(fix for _, _, fix in shown)),
        )

    def _text_columns(self) -> list[tuple[int, str]]:
        """The columns without any number, as keys of `_cells`."""
        return [key for key in self._cells if key[1] == NO_NUMBER and key[0] not in self._numbers]

    def _about_text(self, columns: list[int]) -> tuple[str, str, str]:
        names = [self.names[column] for column in columns]
        numbers = some_columns(str(column + 1) for column in columns)
        problem = f"column {numbers} is text" if len(names) == 1 else f"columns {numbers} are text"
        listed = ", ".join(names)
        if self.no_label:
            one = f"if {listed} is not the label, ignore it or encode it as numbers"
            several = f"of {listed}, ignore or encode as numbers those that are not the label"
            return problem, listed, one if len(names) == 1 else several
        return problem, listed, f"encode as numbers, or ignore: `ignore: [{listed}]`"

    def _about_cells(self, column: int, problem: str) -> tuple[str, str, str]:
        cells = self._cells[column, problem]
        many = "1 cell that" if cells.count == 1 else f"{cells.count} cells that"
        if column < 0:
            many = "1 record that" if cells.count == 1 else f"{cells.count} records that"
            return (
                f"{many} {problem}, first in line {cells.first_line}",
                "record",
                "correct or remove these lines",
            )
        name = self.names[column]
        return (
            f"column {column + 1} has {many} {problem}, first in line {cells.first_line}",
            name,
            "give each record a label, or remove the record"
            if problem == NO_LABEL
            else f"correct {name}; a missing number is an empty cell",
        )


def some_columns(names: Iterable[str]) -> str:
    """The names of columns or labels, as a list of bounded length."""
    return some(names, _SHOWN_COLUMNS)
