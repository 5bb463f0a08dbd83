"""What is wrong with a table, gathered until all of it is known.

A complaint's problem tells of places only: it may be told outside of the site, and what stands in a
first line may be a record where somebody forgot the header. Names of columns stand in the fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daitn.objects.errors import InvalidInput

__all__ = ["NO_NUMBER", "Complaints", "some"]

NO_NUMBER = "cannot be read as a number"
_SHOWN = 20
_SHOWN_COLUMNS = 10


@dataclass
class _Cells:
    """Cells of one column that are wrong in one way."""

    first_line: int
    count: int = 0


@dataclass
class Complaints:
    """Of one file, whose columns have these names."""

    path: Path
    names: Sequence[str] = ()
    no_label: bool = False
    """Nobody knows which column holds the label: one of those that are text may be it."""
    _told: list[tuple[str, str, str]] = field(default_factory=list)
    """Problem, field and fix."""
    _cells: dict[tuple[int, str], _Cells] = field(default_factory=dict)
    _numbers: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self._told or self._cells)

    def say(self, problem: str, name: str, fix: str) -> None:
        """Something that is wrong with the whole."""
        self._told.append((problem, name, fix))

    def cell(self, line: int, column: int, problem: str) -> None:
        """A cell that is wrong, in words that follow "cells that"; column -1: its whole record."""
        cells = self._cells.setdefault((column, problem), _Cells(line))
        cells.count += 1

    def numeric(self, columns: Sequence[int]) -> None:
        """These columns hold numbers: they are no text."""
        if len(self._numbers) < len(self.names):
            self._numbers.update(columns)

    def fail(self) -> None:
        """Raise `InvalidInput` that tells everything, if there is anything to tell."""
        text = self._text_columns()
        every = [*self._told]
        if text:
            every.append(self._said_of_text([column for column, _ in text]))
        every += [self._said(*key) for key in self._cells if key not in text]
        if not every:
            return
        shown = every[:_SHOWN]
        more = f"; and {len(every) - len(shown)} more" if len(every) > len(shown) else ""
        raise InvalidInput(
            f"{self.path}: {'; '.join(problem for problem, _, _ in shown)}{more}",
            field=", ".join(dict.fromkeys(name for _, name, _ in shown)),
            fix="; ".join(dict.fromkeys(fix for _, _, fix in shown)),
        )

    def _text_columns(self) -> list[tuple[int, str]]:
        """Those in which no cell is a number."""
        return [key for key in self._cells if key[1] == NO_NUMBER and key[0] not in self._numbers]

    def _said_of_text(self, columns: list[int]) -> tuple[str, str, str]:
        names = [self.names[column] for column in columns]
        numbers = some(str(column + 1) for column in columns)
        problem = f"column {numbers} is text" if len(names) == 1 else f"columns {numbers} are text"
        listed = ", ".join(names)
        if self.no_label:
            return problem, listed, f"of {listed}, ignore or encode as numbers all but the label"
        return problem, listed, f"encode as numbers, or ignore: `ignore: [{listed}]`"

    def _said(self, column: int, problem: str) -> tuple[str, str, str]:
        cells = self._cells[column, problem]
        many = "1 cell that" if cells.count == 1 else f"{cells.count} cells that"
        if column < 0:
            many = "1 record that" if cells.count == 1 else f"{cells.count} records that"
            return (
                f"{many} {problem}, first in line {cells.first_line}",
                "record",
                "correct these lines, or drop them",
            )
        name = self.names[column]
        return (
            f"column {column + 1} has {many} {problem}, first in line {cells.first_line}",
            name,
            f"correct {name}; a missing number is an empty cell",
        )


def some(names: Iterable[str]) -> str:
    """A list that does not get too long."""
    every = list(names)
    more = f" and {len(every) - _SHOWN_COLUMNS} more" if len(every) > _SHOWN_COLUMNS else ""
    return ", ".join(every[:_SHOWN_COLUMNS]) + more
