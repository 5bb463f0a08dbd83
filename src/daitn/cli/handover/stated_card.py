"""Reads a model card's words that do not follow from the lineage, to recompute the rest."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from daitn.cli.card import MEASURED, METADATA_LINES, USE, SignedFacts, Words, is_prose, measured_row
from daitn.objects.jobs import JobState

__all__ = ["card_words"]

_TRAINED: Final = re.compile(
    r"Trained by DA-ITN for .* parameters, (?P<size>[0-9,]{1,30}) bytes\), .* "
    r"State of the job: (?P<state>[a-z]+)\."
)
_TARGET: Final = re.compile(r"(-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?)?")
_LONGEST: Final = 2000
"""Characters of the sentence about the training."""
_BEFORE: Final = METADATA_LINES + 4
"""Lines before the first section: metadata, the title, and the sentence about the training."""


def card_words(text: str, facts: SignedFacts, words: Words, *, sized: bool) -> Words:
    """`words` of the bill, with what only the card says. `sized`: `words` has the model's size.

    Raises `ValueError` for a text that is no card of an export.
    """
    lines = text.split("\n")
    sentence = lines[_BEFORE - 2][:_LONGEST] if len(lines) > _BEFORE else ""
    trained = _TRAINED.fullmatch(sentence)
    if trained is None:
        raise ValueError(f"its line {_BEFORE - 1} does not say by whom the model was trained")
    if trained["state"] not in set(JobState):
        raise ValueError(f"it names an unknown state of the job, {trained['state']!a}")
    if MEASURED not in lines:
        raise ValueError(f"it has no part {MEASURED!r}")
    size_bytes = int(trained["size"].replace(",", "") or 0)
    return dataclasses.replace(
        words,
        size_bytes=words.size_bytes if sized else size_bytes,
        state=trained["state"],
        targets=tuple(_targets(lines[lines.index(MEASURED) + 4 :], facts)),
        usage=_usage(lines[_BEFORE : lines.index(MEASURED)]),
    )


def _usage(lines: list[str]) -> str:
    """The text of the part on how to use the model; empty if there is none."""
    if lines[:1] != [USE]:
        return ""
    usage = "\n".join(lines[2:-1])
    if not is_prose(usage):
        raise ValueError(f"{USE!r} has more than prose and code, which could pass for another part")
    return usage


def _targets(rows: list[str], facts: SignedFacts) -> list[str]:
    """The target in each row of figures."""
    targets = []
    for number, fact in enumerate(facts.measured):
        before, after = measured_row(fact)
        row = rows[number] if number < len(rows) else ""
        target = row.removeprefix(before).removesuffix(after)
        if len(before) + len(target) + len(after) != len(row) or not _TARGET.fullmatch(target):
            raise ValueError(
                f"row {number + 1} of {MEASURED!r} is {row[:200]!a}, and by the lineage it is "
                f"{before}TARGET{after}"
            )
        targets.append(target)
    return targets
