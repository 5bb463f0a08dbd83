"""Measures whether a model distinguishes the records that it learned from, or canaries, from
similar ones.

The attack by a threshold on the loss (Yeom et al. 2018, "Privacy risk in machine learning",
arXiv:1709.01604; canaries: Carlini et al. 2019, "The secret sharer", arXiv:1802.08232): records
with the lower losses are taken for members. The threshold is the median loss of all probes, so it
is fitted to no answer, and a model that has learned nothing of any one record is wrong about half.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from daitn.learning.classifier.table import Table, profile
from daitn.learning.recipe import DataFault, DataProfile, Fault, Selection

__all__ = ["MEMBER", "UNEXPOSED", "mistaken", "probes", "profile_of_test"]

UNEXPOSED = "unexposed"
"""The metric: the share of probes about which the attack is wrong, 0.5 at best."""
MEMBER = "member"
"""The column that states whether data owners have a probe: 1 or 0."""
_LEAST_SHARE = 0.4
"""Minimum share of members among the probes, and of others: with equal parts, guessing is wrong
about half the time."""


def profile_of_test(path: Path, selection: Selection, metrics: tuple[str, ...]) -> DataProfile:
    """Describe a test set: `unexposed` is among its metrics if it may consist of probes. Raises
    like `profile`."""
    found = profile(path, selection)
    if MEMBER in found.columns:
        return found
    remark = f"{UNEXPOSED} is not measured on it: it has no column {MEMBER}, as probes have"
    others = tuple(metric for metric in metrics if metric != UNEXPOSED)
    return msgspec.structs.replace(found, metrics=others, remarks=(*found.remarks, remark))


def probes(table: Table, path: Path) -> tuple[Table, NDArray[np.bool_]]:
    """The probes of a file, and which of them are members. Raises `DataFault`."""
    if MEMBER not in table.columns:
        raise DataFault(
            Fault.OTHER_COLUMNS,
            f"{path} has no column {MEMBER}, which says for each probe whether a site has it",
            field="columns",
            fix=f"measure {UNEXPOSED} on a test set of probes",
        )
    at = table.columns.index(MEMBER)
    column = table.features[:, at]
    member: NDArray[np.bool_] = column == 1.0
    if not bool((member | (column == 0.0)).all()) or min(member.mean(), 1 - member.mean()) < (
        _LEAST_SHARE
    ):
        raise DataFault(
            Fault.OTHER_COLUMNS,
            f"the column {MEMBER} of {path} is not 1 in about half of the records and 0 in the "
            "others",
            field="columns",
            fix="use equal numbers of probes that a site has and that no site has",
        )
    kept = [number for number in range(len(table.columns)) if number != at]
    columns = tuple(table.columns[number] for number in kept)
    rest = Table(columns=columns, features=table.features[:, kept], labels=table.labels)
    return rest, member


def mistaken(losses: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each probe: 1 if the attack is wrong about it, 0 if it is right, and 0.5 if its loss
    equals the threshold, which says nothing."""
    threshold = np.median(losses)
    wrong = np.where(losses < threshold, ~member, member).astype(np.float64)
    wrong[losses == threshold] = 0.5
    return wrong
