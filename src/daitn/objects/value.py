"""The value of data: what each data set brought to a model, by signed measurements."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.identifiers import JobId, OwnerId, SiteId

__all__ = [
    "MOST_MEASURED",
    "VALUED_WITHIN_S",
    "Contributions",
    "Credit",
    "Valuation",
    "ValueOfData",
    "ValueQuestion",
]

MOST_MEASURED = 128
"""Coalitions that are measured for a job unless its owner says otherwise: of rounds of nine sites,
two orders each of eight."""
VALUED_WITHIN_S = 900.0
"""Time for that. Sites keep models that nobody needs for half an hour."""


class Contributions(enum.StrEnum):
    """How the value of data is found."""

    NONE = "none"
    """Not at all."""
    VISITS = "visits"
    """By what each visit gained; sites of a round share its gain by their examples."""
    SHAPLEY = "shapley"
    """Sites of a round share its gain by their Shapley values: at the job's end, models of some of
    the sites only are merged and measured."""


class Valuation(enum.StrEnum):
    """How far measuring is."""

    NOT_ASKED = "not-asked"
    UNDER_WAY = "under-way"
    ENDED = "ended"


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """What one data set brought to a job's best model."""

    site: SiteId
    dataset: str
    owner: OwnerId
    """As its site states it; the site's name where that is unknown."""
    visits: int
    """That led to the model."""
    examples: int
    """Of these visits."""
    value: dict[str, float]
    """Objective to the part of its gain that this data brought; negative: it did harm."""
    standard_error: dict[str, float]
    """Of that: from measurements, as if they were independent, and from sampling orders."""


class ValueOfData(msgspec.Struct, frozen=True, kw_only=True):
    """Who moved which objective of a job's best model by how much."""

    job: JobId
    method: Contributions
    """`shapley` if that is how at least one round is shared."""
    gain: dict[str, float] = {}
    """Objective to its gain since before the first visit: the sum of all credits."""
    credits: tuple[Credit, ...] = ()
    """The greatest first. A data owner sees its own."""
    rounds: int = 0
    """Rounds that led to the model."""
    rounds_measured: int = 0
    """Of these: shared by Shapley values. The others are shared by examples."""
    coalitions: int = 0
    """That were measured for this."""
    valuation: Valuation = Valuation.NOT_ASKED
    why: str = ""
    """Why there are no credits, or why rounds are not measured."""


class ValueQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the value of a job's data."""

    job: JobId
    measure: bool = False
    """Have rounds measured first. A job that was measured is measured again where it lacks
    something."""
    coalitions: Annotated[int, msgspec.Meta(ge=2, le=1000)] = MOST_MEASURED
    within_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = VALUED_WITHIN_S
