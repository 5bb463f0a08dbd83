"""Multiple-choice questions as chat messages: the wording of the question, and reading answers.

::

    What are the treatments for X?

    A) first option
    B) second option

    Answer with the letter only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["LETTERS", "as_question", "chosen", "read_question", "wants_letter"]

LETTERS = "ABCDEFGH"
_INSTRUCTION = "Answer with the letter only."
_OPTION = re.compile(r"^\s*([A-H])[).:]\s+(.*)$")
_LETTER = re.compile(r"(?<![A-Za-z])([A-H])(?![A-Za-z])")
_LOOKED_AT = 200
"""The letter must stand within this many characters of an answer."""


def as_question(question: str, options: Sequence[str]) -> str:
    """Build the message that asks a model to choose. Line ends within an option become spaces."""
    lettered = zip(LETTERS, options, strict=False)
    lines = [f"{letter}) {' '.join(option.split())}" for letter, option in lettered]
    return "\n".join((" ".join(question.split()), "", *lines, "", _INSTRUCTION))


def read_question(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Question and options of such a message, or none if it is not a multiple-choice question.

    The options are the first run of lines lettered A, B, ... without a gap, at least two.
    """
    before: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        match = _OPTION.match(line)
        if match and len(options) < len(LETTERS) and match[1] == LETTERS[len(options)]:
            options.append(match[2].strip())
        elif options:
            break
        else:
            before.append(line)
    question = " ".join(" ".join(before).split())
    return (question, tuple(options)) if question and len(options) >= 2 else None


def wants_letter(text: str) -> bool:
    """Whether a message asks for a letter and nothing else. Many messages list something."""
    return text.rstrip().endswith(_INSTRUCTION)


def chosen(answer: str, options: int) -> int | None:
    """Index of the option that an answer names: its first standalone letter, or none."""
    for match in _LETTER.finditer(answer[:_LOOKED_AT]):
        index = LETTERS.index(match[1])
        if index < options:
            return index
    return None
