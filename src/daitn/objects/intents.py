"""An owner's intent, in measurable terms.

A *requirement* is hard; an *objective* is a measurement the model must reach; a *preference* ranks
what remains. (Paper, section III: the model owner's request.)
"""

from __future__ import annotations

import enum
import math
from typing import Annotated

import msgspec

from daitn.objects.compression import Compression
from daitn.objects.identifiers import JobId, ObjectiveName, OwnerId, SiteId
from daitn.objects.merging import (
    AT_ONCE,
    CONSIDERED,
    LOCAL_RULES,
    MOST_WALKERS,
    RULES,
    Algorithm,
    LocalRule,
    MergeRule,
    MergeTuning,
    Reduces,
    tuned,
)
from daitn.objects.privacy import PrivacyWish
from daitn.objects.quorum import ONE, Quorum
from daitn.objects.text import Line, plain_fields
from daitn.objects.value import Contributions

__all__ = [
    "MOST_JOB_NAME",
    "WALKERS",
    "Budget",
    "DataWanted",
    "ModelWanted",
    "Objective",
    "PinnedVisit",
    "Preference",
    "Quantity",
    "Requirement",
    "Training",
    "TrainingIntent",
]

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e12)]
Count = Annotated[int, msgspec.Meta(gt=0, le=10**12)]
Name = Annotated[Line, msgspec.Meta(min_length=1, max_length=200)]
Purpose = Annotated[Line, msgspec.Meta(max_length=200)]
WALKERS = 4
"""Usual number of models that travel for one job and meet."""
MOST_JOB_NAME = 40
JobName = Annotated[Line, msgspec.Meta(min_length=1, max_length=MOST_JOB_NAME)]
"""Short, because job ids and visit ids are built from it."""


class Quantity(enum.StrEnum):
    """A property of a data set, its site or its links that a requirement can bound."""

    JURISDICTION = "jurisdiction"
    """ISO 3166-1 alpha-2 code of the data's site. Takes `one_of` or `none_of`."""
    OWNER = "owner"
    """Owner of the data's site. Takes `one_of` or `none_of`."""
    SITE = "site"
    """The data's site. Takes `one_of` or `none_of`."""
    SAMPLES = "samples"
    """Records of the data set."""
    QUALITY = "quality"
    """Share of usable records in the data set, 0 to 1."""
    AGE_S = "age_s"
    """Seconds since the data set changed."""
    PRICE_USD_PER_1K = "price_usd_per_1k"
    """Price of 1,000 training examples of the data set, in USD."""
    SPEED_FLOPS = "speed_flops"
    """Operations per second of the site's compute, measured."""
    MEMORY_BYTES = "memory_bytes"
    """Memory of the site's compute, in bytes."""
    RTT_S = "rtt_s"
    """Round-trip time of the best link to the site, in seconds, recently measured."""
    THROUGHPUT_BPS = "throughput_bps"
    """Throughput of the best link to the site, in bytes per second, recently measured."""

    @property
    def is_name(self) -> bool:
        """Whether it takes names rather than numbers."""
        return self in (Quantity.JURISDICTION, Quantity.OWNER, Quantity.SITE)


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hard bound on one quantity: at least, at most, one of, or none of."""

    quantity: Quantity
    """What is bounded, see below."""
    at_least: float | None = None
    """Lower bound, for a numeric quantity. State exactly one of these four."""
    at_most: float | None = None
    """Upper bound, for a numeric quantity."""
    one_of: tuple[str, ...] = ()
    """Allowed names, for a quantity that is a name."""
    none_of: tuple[str, ...] = ()
    """Forbidden names."""

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
        named = self.quantity.is_name
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
    """Its name in tables and reports."""
    metric: Name = "accuracy"
    """A metric that a verifier offers for the topic."""
    topic: Name
    """Topic of the test set; a verifier must offer it."""
    at_least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    """The target."""

    def __post_init__(self) -> None:
        plain_fields(self, "name", "metric", "topic", blank=False)


class Preference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weight of one scorer when routes are compared."""

    scorer: Name
    """`reach`, `time`, `cost` or `robustness`."""
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
    """Its weight; unnamed scorers have the weight 1. `reach` multiplies the penalty of a route that
    misses a target; below 0.1 it counts as 0.1."""


_FROM_JOB = "job:"


class ModelWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model to train: a recipe, its configuration, and initial weights, if any."""

    recipe: Name
    """The recipe, as installed at the sites."""
    config: dict[str, object] = {}
    """The recipe's own configuration, see below."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Seed of the fresh weights and of the order of examples."""
    start: str = ""
    """Folder of parts to start from, on the owner's machine, or `job:` and the id of an ended job
    whose best model to start from; empty means a fresh model."""

    @property
    def from_job(self) -> JobId | None:
        """The job whose best model it starts from; none if it does not start from a job's."""
        named = self.start.removeprefix(_FROM_JOB)
        return None if named == self.start else JobId(named)


class DataWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which data sets may train the model: those on any of these topics."""

    topics: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    """Data sets on any of these topics may teach the model."""

    def __post_init__(self) -> None:
        plain_fields(self, "topics", blank=False)


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the sites train the model."""

    algorithm: Algorithm = Algorithm.AUTO
    """See below."""
    epochs: Annotated[float, msgspec.Meta(gt=0.0, le=100.0)] = 1.0
    """In rounds: how often a site goes through its records per round."""
    walkers: Annotated[int, msgspec.Meta(ge=2, le=MOST_WALKERS)] | None = None
    """For `gossip`: how many models travel, each with a share of the budget; by default
    {WALKERS}."""
    merging: MergeTuning | None = None
    """In rounds: overrides the algorithm's numbers for merging, see below."""
    mu: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] | None = None
    """In rounds: pull of each site towards the arriving weights; by default
    {objects.merging.PULL} with `fedprox`, else as in the recipe's configuration."""
    consolidation: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] | None = None
    """For `ewc`: the same pull, in proportion to the weights' earlier importance; by default
    {objects.merging.LOCAL_RULES.ewc.consolidation}."""
    distillation: Annotated[float, msgspec.Meta(gt=0.0, le=100.0)] | None = None
    """For `lwf`: weight of the arriving model's prediction for a record, relative to the record's
    label; by default {objects.merging.LOCAL_RULES.lwf.distillation}."""
    contributions: Contributions = Contributions.VISITS
    """How each data set's contribution is determined, see below."""
    credits_usd: Annotated[float, msgspec.Meta(gt=0.0, le=1e9)] | msgspec.UnsetType = msgspec.UNSET
    """Sum to divide among the sites by contribution at the job's end, on top of the prices of
    visits; by default nothing. Earlier versions cannot read an intent with it."""
    compression: Compression = Compression.AUTO
    """In rounds: the form in which updates travel to the aggregator, see below."""
    privacy: PrivacyWish | None = None
    """Differential privacy of the records, see below; by default as data owners demand."""
    secure_aggregation: bool = False
    """In rounds that average: whether sites merge by secure aggregation, which hides individual
    updates."""

    def __post_init__(self) -> None:
        of = {
            "mu": tuple(RULES),
            "consolidation": (Algorithm.EWC,),
            "distillation": (Algorithm.LWF,),
            "walkers": (Algorithm.GOSSIP,),
        }
        for name, algorithms in of.items():
            if getattr(self, name) is not None and self.algorithm not in algorithms:
                raise ValueError(f"{name}: {self.algorithm} has none: leave it out")
        lossy = self.compression not in (Compression.AUTO, Compression.NONE)
        if lossy and self.algorithm in AT_ONCE:
            raise ValueError(f"compression: {self.algorithm} needs whole models: leave it out")
        if self.merging is not None and self.algorithm not in RULES:
            why = "chooses its rules" if self.algorithm is Algorithm.ADAPTIVE else "has no rounds"
            raise ValueError(f"{self.algorithm} {why}: leave out merging")
        shared = self.credits_usd is not msgspec.UNSET
        if shared and self.contributions is Contributions.NONE:
            raise ValueError("credits_usd: contributions are none: nobody knows how to divide it")
        own = RULES.get(self.algorithm)
        if self.merging is not None and own is not None:
            for name in ("reduction", "outer"):
                if getattr(self.merging, name) not in (None, getattr(own, name)):
                    stated = getattr(own, name)
                    raise ValueError(f"merging.{name}: {self.algorithm} needs {name}: {stated}")
        if self.secure_aggregation and self.rule is None:
            raise ValueError(f"secure_aggregation: {self.algorithm} has no rounds to aggregate")
        if self.secure_aggregation and self.rule and self.rule.reduction is not Reduces.MEAN:
            raise ValueError(
                f"secure_aggregation: {self.rule.reduction} looks at each site's model, of which a "
                "secure sum shows none: take fedavg, fedadam, fedyogi or diloco"
            )
        if self.secure_aggregation and self.algorithm in (*AT_ONCE, Algorithm.FEDBUFF):
            raise ValueError(
                f"secure_aggregation: {self.algorithm} needs each site's model: take fedavg, "
                "fedadam, fedyogi or diloco"
            )
        if self.secure_aggregation and (lossy or self.contributions is Contributions.SHAPLEY):
            field = "compression" if lossy else "contributions"
            raise ValueError(f"{field}: nobody sees what one site made: leave it out")
        if self.privacy is not None and not self.local.plain:
            raise ValueError(
                f"privacy: {self.algorithm} learns more from the records than it covers: use "
                f"sequential, fedavg or another one with ordinary visits"
            )
        if self.rule is not None and self.rule.least_models is None:
            reduction = self.rule.reduction
            raise ValueError(f"merging.tolerates: {reduction} tolerates no malicious models")

    @property
    def rule(self) -> MergeRule | None:
        """How a round's models are merged; absent means there are no rounds."""
        own = RULES.get(self.algorithm)
        return self.merging.of(own) if own is not None and self.merging is not None else own

    @property
    def rules(self) -> dict[Algorithm, MergeRule]:
        """How rounds may merge, by algorithm; several if the network chooses."""
        if self.algorithm is Algorithm.ADAPTIVE:
            return {one: RULES[one] for one in CONSIDERED}
        return {self.algorithm: self.rule} if self.rule is not None else {}

    @property
    def travelling(self) -> int:
        """How many models of the job travel at the same time."""
        return (self.walkers or WALKERS) if self.algorithm is Algorithm.GOSSIP else 1

    @property
    def local(self) -> LocalRule:
        """What sites do in visits, except in rounds that the network chose."""
        return self.local_in(None)

    def local_in(self, chosen: Algorithm | None) -> LocalRule:
        """What sites do in rounds of an algorithm that the network chose."""
        algorithm = self.algorithm
        if chosen is not None and algorithm is Algorithm.ADAPTIVE:
            algorithm = chosen
        rule = LOCAL_RULES.get(algorithm, LocalRule())
        names = ("mu", "consolidation", "distillation")
        return tuned(rule, {name: getattr(self, name) for name in names})


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the job may spend. An absent limit means no limit."""

    duration_s: Positive | None = None
    """From submission to the end of the last verification."""
    cost_usd: Annotated[float, msgspec.Meta(ge=0.0, le=1e12)] | None = None
    """Cost of all visits."""
    examples: Count | None = None
    """Training examples over all visits."""


class PinnedVisit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One visit of a route that the owner fixes instead of leaving it to the network."""

    site: SiteId
    """Where."""
    examples: Count
    """Training examples of this visit."""


class TrainingIntent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model owner's request to DA-ITN-T."""

    name: JobName
    """The job is called `<name>-1`, then `<name>-2`, ..."""
    owner: OwnerId
    """The model owner, as data owners' policies name it."""
    purpose: Purpose = ""
    """What the model is for, as data owners' policies name it."""
    model: ModelWanted
    """What to train, see below."""
    objectives: Annotated[tuple[Objective, ...], msgspec.Meta(min_length=1)]
    """Targets that the model must reach when measured, see below."""
    data: DataWanted
    """Data that the model may learn from, see below."""
    requirements: tuple[Requirement, ...] = ()
    """What that data must satisfy, see below."""
    budget: Budget = Budget()
    """Limits of the job, see below; an absent limit means no limit."""
    preferences: tuple[Preference, ...] = ()
    """How routes are compared, see below."""
    training: Training = Training()
    """How the sites train the model, see below."""
    route: tuple[PinnedVisit, ...] = ()
    """Exactly these visits, see below; empty means MTRCE computes the route."""
    verification: Quorum | msgspec.UnsetType = msgspec.UNSET
    """How many verifiers measure each objective, see below; by default one. Earlier versions cannot
    read an intent with it."""

    def __post_init__(self) -> None:
        plain_fields(self, "owner", "purpose")
        if self.route and self.training.rule is not None:
            raise ValueError(
                f"training: {self.training.algorithm} goes to all sites at once: "
                "leave out route, or use the algorithm sequential"
            )
        names = [objective.name for objective in self.objectives]
        tests = [(objective.topic, objective.metric) for objective in self.objectives]
        for position in range(len(names)):
            if names[position] in names[:position]:
                raise ValueError(f"objectives[{position}].name: {names[position]} occurs twice")
            if tests[position] in tests[:position]:
                topic, metric = tests[position]
                raise ValueError(f"objectives[{position}]: {metric} on {topic} occurs twice")

    @property
    def quorum(self) -> Quorum:
        """How many verifiers measure each objective, and how many of them must agree."""
        return ONE if self.verification is msgspec.UNSET else self.verification

    def weighs(self, scorer: str) -> float:
        """The weight of a scorer when routes are compared."""
        stated = {preference.scorer: preference.weight for preference in self.preferences}
        return stated.get(scorer, 1.0)

    def objective(self, name: str) -> Objective:
        """The objective called `name`; it must exist."""
        return next(o for o in self.objectives if o.name == name)

    def objective_names(self) -> tuple[ObjectiveName, ...]:
        return tuple(ObjectiveName(o.name) for o in self.objectives)
