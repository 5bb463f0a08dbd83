"""What an owner wants, stated so that any shortfall can be measured.

A *requirement* is hard; an *objective* is a measurement the model must reach; a *preference* ranks
what remains. (Paper, section III: the model owner's request.)
"""

from __future__ import annotations

import enum
import math
from typing import Annotated

import msgspec

from daitn.objects.identifiers import ObjectiveName, OwnerId, SiteId
from daitn.objects.text import plain_fields

__all__ = [
    "Budget",
    "DataWanted",
    "ModelWanted",
    "Objective",
    "PinnedVisit",
    "Preference",
    "Quantity",
    "Requirement",
    "TrainingIntent",
]

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e12)]
Count = Annotated[int, msgspec.Meta(gt=0, le=10**12)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
JobName = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
"""Short, because job ids and visit ids are built from it."""


class Quantity(enum.StrEnum):
    """A property of a data set, its site or its links that a requirement can bound."""

    JURISDICTION = "jurisdiction"
    OWNER = "owner"
    SITE = "site"
    SAMPLES = "samples"
    QUALITY = "quality"
    AGE_S = "age_s"
    PRICE_USD_PER_1K = "price_usd_per_1k"
    SPEED_FLOPS = "speed_flops"
    MEMORY_BYTES = "memory_bytes"
    RTT_S = "rtt_s"
    THROUGHPUT_BPS = "throughput_bps"


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hard bound on one quantity: at least, at most, one of, or none of."""

    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        stated = (
            self.at_least is not None,
            self.at_most is not None,
            bool(self.one_of),
            bool(self.none_of),
        )
        if sum(stated) != 1:
            raise ValueError("state exactly one of at_least, at_most, one_of, none_of")
        if not all(math.isfinite(b) for b in (self.at_least, self.at_most) if b is not None):
            raise ValueError("a bound must be a finite number")
        named = self.quantity in (Quantity.JURISDICTION, Quantity.OWNER, Quantity.SITE)
        if named != bool(self.one_of or self.none_of):
            allowed = "one_of or none_of" if named else "at_least or at_most"
            raise ValueError(f"{self.quantity} takes {allowed}")

    def shortfall(self, value: float | str) -> float:
        """How far `value` misses the bound, in the quantity's unit; 0 if it holds.

        A name that is not allowed misses by 1.
        """
        if isinstance(value, str):
            bad = (self.one_of and value not in self.one_of) or value in self.none_of
            return 1.0 if bad else 0.0
        if self.at_least is not None:
            return max(0.0, self.at_least - value)
        assert self.at_most is not None
        return max(0.0, value - self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"{self.quantity} >= {self.at_least:g}"
        if self.at_most is not None:
            return f"{self.quantity} <= {self.at_most:g}"
        if self.one_of:
            return f"{self.quantity} in {{{', '.join(self.one_of)}}}"
        return f"{self.quantity} not in {{{', '.join(self.none_of)}}}"


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A target for a metric on a verifier's test set."""

    name: Name
    metric: Name = "accuracy"
    topic: Name
    """Topic of the test set; a verifier must offer it."""
    at_least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]

    def __post_init__(self) -> None:
        plain_fields(self, "name", "metric", "topic", blank=False)


class Preference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weight of one scorer when routes are compared."""

    scorer: Name
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]


class ModelWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model to train: a recipe, its configuration, and weights if there are any yet."""

    recipe: Name
    config: dict[str, object] = {}
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    start: str = ""
    """Folder of parts to start from, on the owner's machine; empty for a fresh model."""


class DataWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which data sets may train the model: those on any of these topics."""

    topics: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        plain_fields(self, "topics", blank=False)


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the job may spend. An absent limit is no limit."""

    duration_s: Positive | None = None
    """Seconds from submission to the end of the last verification."""
    cost_usd: Annotated[float, msgspec.Meta(ge=0.0, le=1e12)] | None = None
    examples: Count | None = None
    """Training examples over all visits."""


class PinnedVisit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One visit of a route that the owner fixes instead of leaving it to the network."""

    site: SiteId
    examples: Count


class TrainingIntent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model owner's request to DA-ITN-T."""

    name: JobName
    owner: OwnerId
    model: ModelWanted
    objectives: Annotated[tuple[Objective, ...], msgspec.Meta(min_length=1)]
    data: DataWanted
    requirements: tuple[Requirement, ...] = ()
    budget: Budget = Budget()
    preferences: tuple[Preference, ...] = ()
    route: tuple[PinnedVisit, ...] = ()
    """Empty: MTRCE computes the route. Otherwise exactly these visits, for comparison."""

    def __post_init__(self) -> None:
        plain_fields(self, "owner")
        names = [objective.name for objective in self.objectives]
        tests = [(objective.topic, objective.metric) for objective in self.objectives]
        for position in range(len(names)):
            if names[position] in names[:position]:
                raise ValueError(f"objectives[{position}].name: {names[position]} is there twice")
            if tests[position] in tests[:position]:
                topic, metric = tests[position]
                raise ValueError(f"objectives[{position}]: {metric} on {topic} is there twice")

    def objective(self, name: str) -> Objective:
        """The objective called `name`; it must exist."""
        return next(o for o in self.objectives if o.name == name)

    def objective_names(self) -> tuple[ObjectiveName, ...]:
        return tuple(ObjectiveName(o.name) for o in self.objectives)
