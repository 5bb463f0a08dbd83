"""The value of data: what each data set contributed to a model, by signed measurements."""

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
"""Maximum number of coalitions measured for a job, unless its owner says otherwise: for rounds of
nine sites, two orders of eight each."""
VALUED_WITHIN_S = 900.0
"""Time limit for that. Sites keep unneeded models for half an hour."""


class Contributions(enum.StrEnum):
    """How the value of data is determined."""

    NONE = "none"
    """Not at all."""
    VISITS = "visits"
    """By the gain of each visit; sites of a round share its gain by their examples."""
    SHAPLEY = "shapley"
    """Sites of a round share its gain by their Shapley values: at the job's end, updates of subsets
    of the sites are merged and measured."""


class Valuation(enum.StrEnum):
    """Progress of measuring."""

    NOT_ASKED = "not-asked"
    UNDER_WAY = "under-way"
    ENDED = "ended"


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """The contribution of one data set to a job's best model."""

    site: SiteId
    dataset: str
    owner: OwnerId
    """As stated by its site; the site's name if unknown."""
    visits: int
    """Visits that led to the model."""
    examples: int
    """Examples of these visits."""
    value: dict[str, float]
    """Objective to the part of its gain due to this data; negative if it did harm."""
    standard_error: dict[str, float]
    """Its standard error: from measurements, as if they were independent, and from sampling
    orders."""


class ValueOfData(msgspec.Struct, frozen=True, kw_only=True):
    """Contributions to each objective of a job's best model."""

    job: JobId
    method: Contributions
    """`shapley` if at least one round is shared that way."""
    gain: dict[str, float] = {}
    """Objective to its gain since before the first visit: the sum of all credits."""
    credits: tuple[Credit, ...] = ()
    """Largest first. A data owner sees only its own."""
    rounds: int = 0
    """Rounds that led to the model."""
    rounds_measured: int = 0
    """Rounds divided by Shapley values; the others are divided by examples."""
    coalitions: int = 0
    """Number of measured coalitions."""
    valuation: Valuation = Valuation.NOT_ASKED
    why: str = ""
    """Why there are no credits, or why rounds are not measured."""


class ValueQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the value of a job's data."""

    job: JobId
    measure: bool = False
    """Measure rounds first. A measured job is measured again if something is missing."""
    coalitions: Annotated[int, msgspec.Meta(ge=2, le=1000)] = MOST_MEASURED
    within_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = VALUED_WITHIN_S
