"""Tables of probes, on which verifiers measure how much a model reveals of its records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daitn.learning.classifier.table import Table, profile
from daitn.learning.exposure import MEMBER, UNEXPOSED, halved, without_probes
from daitn.learning.recipe import DataFault, DataProfile, Fault, Selection

__all__ = ["probes", "profile_of_test"]


def profile_of_test(path: Path, selection: Selection, metrics: tuple[str, ...]) -> DataProfile:
    """Describe a test set: `unexposed` is among its metrics if it may consist of probes. Raises
    like `profile`."""
    found = profile(path, selection)
    if MEMBER in found.columns:
        return found
    return without_probes(found, metrics, f"it has no column {MEMBER}, as probes have")


def probes(table: Table, path: Path) -> tuple[Table, NDArray[np.bool_]]:
    """The probes of a file, and which of them are members. Raises `DataFault`."""
    if MEMBER not in table.columns:
        raise DataFault(
            Fault.NO_PROBES,
            f"{path} has no column {MEMBER}, which says for each probe whether a site has it",
            field=MEMBER,
            fix=f"measure {UNEXPOSED} on a test set of probes",
        )
    at = table.columns.index(MEMBER)
    column = table.features[:, at]
    member: NDArray[np.bool_] = column == 1.0
    if not bool((member | (column == 0.0)).all()) or not halved(member):
        raise DataFault(
            Fault.NO_PROBES,
            f"the column {MEMBER} of {path} is not 1 in about half of the records and 0 in the "
            "others",
            field=MEMBER,
            fix="use equal numbers of probes that a site has and that no site has",
        )
    kept = [number for number in range(len(table.columns)) if number != at]
    columns = tuple(table.columns[number] for number in kept)
    rest = Table(columns=columns, features=table.features[:, kept], labels=table.labels)
    return rest, member
