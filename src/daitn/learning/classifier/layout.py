"""The columns of a table to read, by its header and its owner's selection."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from daitn.learning.classifier.complaints import Complaints
from daitn.learning.recipe import DataFault, Fault, Selection
from daitn.objects.text import plain

__all__ = ["LABEL", "Layout", "label_column", "lay_out"]

LABEL = "label"
"""Name of the column with the label if the data's owner names none."""


@dataclass(frozen=True)
class Layout:
    """Positions of cells in a row."""

    width: int
    """The number of cells in a row."""
    label: int
    """-1: there is no such column, and a complaint says so."""
    features: tuple[int, ...]


def label_column(wanted: str, selection: Selection) -> str:
    """The column with the label for a model that names `wanted`.

    The data's owner decides. Raises `DataFault` if the owner names another one.
    """
    named = plain(selection.label)
    if wanted not in (LABEL, named or LABEL):
        raise DataFault(
            Fault.LABEL_NOT_OFFERED,
            f"the data owner does not offer {wanted!r} as the label",
            field="model.config.label",
            fix="leave it out: each data set's owner names the column",
        )
    return named or wanted


def lay_out(
    path: Path, header: list[str], wanted: str, selection: Selection
) -> tuple[Layout, Complaints]:
    """Find the columns. The complaints contain everything wrong with the header.

    Raises `InvalidInput` if the header names fewer than two columns.
    """
    names = tuple(map(plain, header))
    if len(names) < 2:
        _refuse_header(path, header)
    complaints = Complaints(path, names)
    name = label_column(wanted, selection)
    label = names.index(name) if name in names else -1
    if label < 0:
        complaints.no_label = True
        near = _near(name, names)
        fix = "say which column holds the label: `label: its name`"
        if near:
            fix += f", perhaps {' or '.join(near)}"
        complaints.add(f"no column is called {name}", "label", fix, Fault.NO_LABEL)
    offered = _offered(names, selection, complaints)
    features = tuple(at for at in offered if at != label)
    _check_names(names, features, label, complaints)
    if not features:
        complaints.add("no column is left to learn from", "columns", "offer at least one")
    return Layout(width=len(names), label=label, features=features), complaints


def _offered(
    names: tuple[str, ...], selection: Selection, complaints: Complaints
) -> tuple[int, ...]:
    for field in ("columns", "ignore"):
        for name in map(plain, getattr(selection, field)):
            if name not in names:
                near = _near(name, names)
                meant = f"perhaps {' or '.join(near)} is meant" if near else "leave it out"
                complaints.add(f"no column is called {name}, as `{field}` says", field, meant)
    only, ignored = set(map(plain, selection.columns)), set(map(plain, selection.ignore))
    if plain(selection.label) in ignored - {""}:
        complaints.add("the label is ignored", "ignore", "leave the label out of `ignore`")
    return tuple(
        at for at, name in enumerate(names) if name not in ignored and (name in only or not only)
    )


def _check_names(
    names: tuple[str, ...], features: tuple[int, ...], label: int, complaints: Complaints
) -> None:
    """Check that the columns to read have unique names."""
    read = {*features, *([label] if label >= 0 else [])}
    times = Counter(names)
    for at in sorted(read):
        if not names[at]:
            fix = "name every column, or list in `columns` those that models may learn from"
            complaints.add(f"column {at + 1} has no name", "header", fix)
        elif times[names[at]] > 1:
            complaints.add(
                f"column {at + 1} is one of {times[names[at]]} of the same name",
                names[at],
                "give each column a name of its own",
            )


def _refuse_header(path: Path, header: list[str]) -> None:
    other_separator = any(mark in "".join(header) for mark in ";\t|")
    raise DataFault(
        Fault.NO_HEADER,
        f"{path}, line 1, field header: names fewer than two columns",
        field="header",
        fix="separate columns by commas"
        if other_separator
        else "name the columns in the first line",
    )


def _near(name: str, names: tuple[str, ...]) -> list[str]:
    """Columns that may be meant: equal except for case and spaces, or else with similar names."""
    bare = {other: "".join(other.casefold().split()) for other in names if other}
    wanted = "".join(name.casefold().split())
    same = [other for other, written in bare.items() if written == wanted]
    return same or difflib.get_close_matches(name, tuple(bare), n=3)
