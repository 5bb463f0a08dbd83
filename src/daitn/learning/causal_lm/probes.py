"""Questions that are probes, on which verifiers measure how much a model reveals of its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daitn.learning.corpora.records import MultipleChoice
from daitn.learning.exposure import MEMBER, UNEXPOSED, halved
from daitn.learning.recipe import DataFault, Fault

__all__ = ["members", "no_probes"]


def members(choices: Sequence[MultipleChoice], path: Path) -> list[bool]:
    """Which probes of a file are members. Raises `DataFault` if they are no probes."""
    if why_not := no_probes(choices):
        raise DataFault(
            Fault.NO_PROBES,
            f"{path}: {why_not}",
            field=MEMBER,
            fix=f"measure {UNEXPOSED} on a test set of probes: equal numbers of records that a "
            "site has and that no site has",
        )
    return [item.member is True for item in choices]


def no_probes(choices: Sequence[MultipleChoice]) -> str:
    """Why items are no probes; empty if they are."""
    told = [item.member for item in choices if isinstance(item.member, bool)]
    if len(told) < len(choices):
        missing = len(choices) - len(told)
        return f"{missing} of {len(choices)} items have no field {MEMBER}, as probes have"
    return "" if halved(told) else f"the field {MEMBER} is not true in about half of the items"
