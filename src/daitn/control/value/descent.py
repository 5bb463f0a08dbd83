"""The steps that made a model, with the measurements before and after each."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from daitn.control.agreeing import agreed
from daitn.objects.identifiers import Digest
from daitn.objects.lineage import Entry, Merge, Verification, Visit, left_by

__all__ = ["START", "Descent", "DescentStep", "Point", "Test", "descent_of"]

Test = tuple[str, str]
"""Topic and metric."""
Point = Digest
"""A measured model, by the entry that made it."""
START: Point = Digest("")
"""The weights supplied by the owner: no entry made them."""


@dataclass(frozen=True)
class DescentStep:
    """One visit, or a round of several."""

    made: Entry
    """The visit or merge whose model was measured."""
    visits: tuple[Entry, ...]
    before: Point

    @property
    def after(self) -> Point:
        return self.made.digest

    @property
    def together(self) -> bool:
        """Whether it merged models of single visits that all started from its base."""
        fact = self.made.fact
        return (
            isinstance(fact, Merge)
            and len(self.visits) == len(fact.models)
            and all(_began(visit) == fact.base for visit in self.visits)
        )

    @property
    def why_whole(self) -> str:
        """Why models of only some of its visits cannot be merged; empty if they can."""
        if not isinstance(self.made.fact, Merge) or self.together:
            return ""
        left = {left_by(visit.fact) for visit in self.visits}
        began = {_began(visit) for visit in self.visits}
        if began & left:
            return "the visits of a chain build on one another"
        if began - {self.made.fact.base}:
            return "late models began with an earlier model than their round"
        return "groups of sites were merged before their round was"

    @property
    def shares(self) -> tuple[float, ...]:
        """Each visit's share of the examples; sums to 1."""
        examples = [e.fact.examples for e in self.visits if isinstance(e.fact, Visit)]
        total = sum(examples) or 1
        return tuple(one / total for one in examples)


@dataclass(frozen=True)
class Descent:
    """The steps, oldest first."""

    steps: tuple[DescentStep, ...]
    measured: dict[Point, dict[Test, Verification]]
    """Measurements of all models of the job: the majority's value among the verifiers of each."""
    first: Point | None
    """Base model of the first step; `None` means nothing was measured."""
    last: Point | None


def descent_of(entries: Sequence[Entry], model: Digest) -> Descent:
    """The descent of a model, from a job's lineage. Follows entries rather than models: a visit may
    return an earlier model."""
    known = {entry.digest: entry for entry in entries}
    measurements: dict[Point, dict[Test, list[Verification]]] = defaultdict(dict)
    for entry in entries:
        fact = entry.fact
        if isinstance(fact, Verification):
            point = entry.previous[0] if entry.previous else START
            measurements[point].setdefault((fact.topic, fact.metric), []).append(fact)
    measured = {
        point: {test: agreed(facts).fact for test, facts in tests.items()}
        for point, tests in measurements.items()
    }
    last = _maker(known, measured, model)
    steps: list[DescentStep] = []
    at = last
    while at is not None and at in known:
        step = _step(known, measured, known[at])
        if step is None:
            break
        steps.append(step)
        at = step.before
    return Descent(tuple(reversed(steps)), measured, at, last)


def _maker(
    known: dict[Digest, Entry], measured: dict[Point, dict[Test, Verification]], model: Digest
) -> Point | None:
    """The latest measured entry that made a model; `START` for weights that no entry made."""
    for digest, entry in reversed(known.items()):
        made = not isinstance(entry.fact, Verification) and left_by(entry.fact) == model
        if made and digest in measured:
            return digest
    brought = {fact.model for fact in measured.get(START, {}).values()}
    return START if model in brought else None


def _step(
    known: dict[Digest, Entry], measured: dict[Point, dict[Test, Verification]], made: Entry
) -> DescentStep | None:
    """The step that ended with an entry; none if it created a model."""
    if isinstance(made.fact, Merge):
        base = made.fact.base
        visits = tuple(visit for digest in made.previous for visit in _visits(known, digest, base))
    elif isinstance(made.fact, Visit):
        base, visits = made.fact.model_in, (made,)
    else:
        return None
    first = next((one for one in visits if _began(one) == base), None)
    if first is None:  # All of its models are late, and began with earlier ones.
        earlier = itertools.takewhile(lambda one: one[0] != made.digest, known.items())
        point = _maker(dict(earlier), measured, base)
        return DescentStep(made, visits, point) if point is not None else None
    before = [known[digest] for digest in first.previous if digest in known]
    if not before:
        return None
    return DescentStep(made, visits, before[0].previous[0] if before[0].previous else START)


def _visits(known: dict[Digest, Entry], digest: Digest, base: Digest) -> tuple[Entry, ...]:
    """The visits of a round in one of its models, which several sites may have made."""
    entry = known.get(digest)
    if entry is None or not isinstance(entry.fact, Visit | Merge):
        return ()
    earlier: tuple[Digest, ...] = () if _began(entry) == base else entry.previous
    if isinstance(entry.fact, Merge):
        earlier = entry.previous
    found = tuple(visit for one in earlier for visit in _visits(known, one, base))
    return (*found, entry) if isinstance(entry.fact, Visit) else found


def _began(entry: Entry) -> Digest | None:
    return entry.fact.model_in if isinstance(entry.fact, Visit) else None
