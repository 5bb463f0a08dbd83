"""What each data set contributed to a model: gains along its lineage, with rounds divided among
their sites.

Every credit is a sum of measurements with weights, so its error follows from theirs, and what two
visits in a row share cancels out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from daitn.control.value.descent import Descent, DescentStep, Point, Test
from daitn.control.value.game import NOBODY, Coalition, Game, Known, Share, Worth
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.lineage import Visit
from daitn.objects.value import Credit

__all__ = ["MeasuredRound", "Objectives", "credits_of", "gain_of", "worth_of"]

Objectives = Mapping[str, Test]
"""Name to the test that measures it."""
_Key = tuple[Point, Coalition]
"""What was measured: a model of the descent, or, for a round, a merge of some of its updates."""


@dataclass(frozen=True)
class MeasuredRound:
    """A round's game, and its known results."""

    game: Game
    known: Known


@dataclass
class _Sum:
    weights: dict[_Key, float] = field(default_factory=lambda: defaultdict(float))
    """Measurements, and the weight of each for this data."""
    sampled: list[float] = field(default_factory=list)
    """Variance from drawing orders at random, by objective."""
    visits: int = 0
    examples: int = 0

    def take(self, visit: Visit, step: DescentStep, share: Share) -> None:
        self.visits += 1
        self.examples += visit.examples
        for coalition, weight in share.weights.items():
            self.weights[_key(step, coalition)] += weight
        before = self.sampled or [0.0] * len(share.sampled)
        self.sampled = [a + b for a, b in zip(before, share.sampled, strict=True)]


def worth_of(descent: Descent, point: Point, objectives: Objectives) -> Worth | None:
    """The measured values of a model; none if an objective was not measured."""
    facts = descent.measured.get(point, {})
    found = [facts[test] for test in objectives.values() if test in facts]
    if len(found) < len(objectives):
        return None
    return Worth(tuple(fact.value for fact in found), tuple(fact.standard_error for fact in found))


def gain_of(descent: Descent, objectives: Objectives) -> dict[str, float]:
    """Objective to its gain since before the first step; empty if nothing was measured."""
    ends = [
        worth_of(descent, point, objectives) if point is not None else None
        for point in (descent.first, descent.last)
    ]
    if ends[0] is None or ends[1] is None or not descent.steps:
        return {}
    gains = (after - before for before, after in zip(ends[0].values, ends[1].values, strict=True))
    return dict(zip(objectives, gains, strict=True))


def credits_of(
    descent: Descent,
    objectives: Objectives,
    rounds: Mapping[Digest, MeasuredRound],
    owner_of: Callable[[SiteId], OwnerId],
) -> tuple[Credit, ...]:
    """By data set, largest sum over the objectives first. `rounds`: by the entry of their merge;
    missing ones are divided by examples. The credits sum to the gain."""
    sums: dict[tuple[SiteId, str], _Sum] = defaultdict(_Sum)
    worths: dict[_Key, Worth] = {}
    for step in descent.steps:
        before, after = (worth_of(descent, at, objectives) for at in (step.before, step.after))
        if before is None or after is None:
            continue
        worths[step.before, NOBODY], worths[step.after, NOBODY] = before, after
        played = rounds.get(step.after)
        shares = _divided(step, played, len(objectives))
        for entry, share in zip(step.visits, shares, strict=True):
            visit = entry.fact
            assert isinstance(visit, Visit)
            sums[visit.site, visit.dataset].take(visit, step, share)
        for coalition, worth in played.known.items() if played else ():
            worths.setdefault(_key(step, coalition), worth)
    found = [
        _credit(site, dataset, owner_of(site), one, worths, tuple(objectives))
        for (site, dataset), one in sums.items()
    ]
    return tuple(sorted(found, key=lambda one: (-sum(one.value.values()), one.site, one.dataset)))


def _divided(step: DescentStep, played: MeasuredRound | None, objectives: int) -> tuple[Share, ...]:
    """The share of each of a step's visits."""
    shares = played.game.shares(played.known) if played else None
    if shares is not None and len(shares) == len(step.visits):
        return shares
    everybody = frozenset(range(len(step.visits)))
    return tuple(
        Share({everybody: share, NOBODY: -share}, (0.0,) * objectives) for share in step.shares
    )


def _key(step: DescentStep, coalition: Coalition) -> _Key:
    """The empty coalition is the model before the step, and the full one the model after it."""
    if not coalition:
        return step.before, NOBODY
    return step.after, NOBODY if len(coalition) == len(step.visits) else coalition


def _credit(
    site: SiteId,
    dataset: str,
    owner: OwnerId,
    found: _Sum,
    worths: Mapping[_Key, Worth],
    objectives: Sequence[str],
) -> Credit:
    values, errors = {}, {}
    for number, name in enumerate(objectives):
        parts = [(weight, worths[key]) for key, weight in found.weights.items()]
        values[name] = math.fsum(weight * worth.values[number] for weight, worth in parts)
        measured = sum((weight * worth.standard_errors[number]) ** 2 for weight, worth in parts)
        errors[name] = math.sqrt(measured + found.sampled[number])
    return Credit(
        site=site,
        dataset=dataset,
        owner=owner,
        visits=found.visits,
        examples=found.examples,
        value=values,
        standard_error=errors,
    )
