"""Query load, generated once from a seed and replayed any number of times."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryConstraints

__all__ = ["Arrival", "Lengths", "LoadPhase", "QueryKind", "QueryLoad", "recorded"]


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One query of a recorded load."""

    number: int
    at_s: float
    """Seconds since the world began."""
    gateway: SiteId
    topic: str
    model: str
    tokens_in: int
    tokens_out: int
    """Length of its answer from any deployment: unknown beforehand."""
    limit: int
    """The limit that its owner sets; 0 means none."""
    luck: float
    """Its answer takes this many times the usual time of its deployment."""
    constraints: QueryConstraints = QueryConstraints()


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of answers: lognormal, so that most are short and some many times as long."""

    median: float
    sigma: float
    bounds: tuple[int, ...]
    """Upper limits; each query draws one at random."""
    bounded_share: float


@dataclass(frozen=True, slots=True)
class QueryKind:
    """Queries with the same constraints."""

    share: float
    model: str = AUTO
    constraints: QueryConstraints = field(default_factory=QueryConstraints)


@dataclass(frozen=True, slots=True)
class LoadPhase:
    """Load from `since_s` until the next phase."""

    since_s: float
    per_s: Mapping[SiteId, float]
    """Queries per second at each gateway."""
    topics: Mapping[str, float]
    """Weights."""


@dataclass(frozen=True, slots=True)
class QueryLoad:
    """Random queries. Arrivals are Poisson in each phase."""

    phases: tuple[LoadPhase, ...]
    until_s: float
    lengths: Lengths
    kinds: tuple[QueryKind, ...] = field(default_factory=lambda: (QueryKind(share=1.0),))
    luck_sigma: float = 0.1
    """Sigma of the lognormal luck: repeated runs of one server differ by about a tenth."""


def recorded(load: QueryLoad, seed: int) -> tuple[Arrival, ...]:
    """The queries of a load in order of time; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - a recorded load is the same for the same seed
    return tuple(_arrivals(load, rng))


def _arrivals(load: QueryLoad, rng: random.Random) -> Iterator[Arrival]:
    number = 0
    ends_s = [*(phase.since_s for phase in load.phases[1:]), load.until_s]
    for phase, end_s in zip(load.phases, ends_s, strict=True):
        per_s = sum(phase.per_s.values())
        at_s = phase.since_s + rng.expovariate(per_s)
        while at_s < end_s:
            yield _arrival(load, phase, number, at_s, rng)
            number += 1
            at_s += rng.expovariate(per_s)


def _arrival(
    load: QueryLoad, phase: LoadPhase, number: int, at_s: float, rng: random.Random
) -> Arrival:
    gateway = rng.choices(list(phase.per_s), list(phase.per_s.values()))[0]
    topic = rng.choices(list(phase.topics), list(phase.topics.values()))[0]
    kind = rng.choices(load.kinds, [kind.share for kind in load.kinds])[0]
    lengths = load.lengths
    bound = rng.choice(lengths.bounds)
    bounded = rng.random() < lengths.bounded_share
    tokens = lengths.median * math.exp(rng.gauss(0.0, lengths.sigma))
    return Arrival(
        number=number,
        at_s=at_s,
        gateway=gateway,
        topic=topic,
        model=kind.model,
        tokens_in=rng.randrange(20, 200),
        tokens_out=max(1, min(round(tokens), bound)),
        limit=bound if bounded else 0,
        luck=math.exp(rng.gauss(0.0, load.luck_sigma)),
        constraints=kind.constraints,
    )
