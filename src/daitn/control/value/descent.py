"""The steps by which a model came about, with what was measured before and after each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from daitn.objects.identifiers import Digest
from daitn.objects.lineage import Entry, Merge, Verification, Visit, left_by

__all__ = ["START", "Descent", "Point", "Step", "Test", "descent_of"]

Test = tuple[str, str]
"""Topic and metric."""
Point = Digest
"""A model that was measured, by the entry that made it."""
START: Point = Digest("")
"""The weights that the owner brought: no entry made them."""


@dataclass(frozen=True)
class Step:
    """One visit, or a round of several."""

    made: Entry
    """The visit or the merge whose model was measured."""
    visits: tuple[Entry, ...]
    before: Point

    @property
    def after(self) -> Point:
        return self.made.digest

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each visit, its part of the examples; sums to 1."""
        examples = [e.fact.examples for e in self.visits if isinstance(e.fact, Visit)]
        total = sum(examples) or 1
        return tuple(one / total for one in examples)


@dataclass(frozen=True)
class Descent:
    """The steps, oldest first."""

    steps: tuple[Step, ...]
    measured: dict[Point, dict[Test, Verification]]
    """Of all models of the job."""
    first: Point | None
    """The model of the first step's base; none: nothing was measured."""
    last: Point | None


def descent_of(entries: Sequence[Entry], model: Digest) -> Descent:
    """How a model came about, by a job's lineage. Follows entries and not models: a visit may give
    back a model that was there before."""
    known = {entry.digest: entry for entry in entries}
    measured: dict[Point, dict[Test, Verification]] = defaultdict(dict)
    for entry in entries:
        fact = entry.fact
        if isinstance(fact, Verification):
            point = entry.previous[0] if entry.previous else START
            measured[point][fact.topic, fact.metric] = fact
    last = _maker(known, measured, model)
    steps: list[Step] = []
    at = last
    while at is not None and at in known:
        step = _step(known, known[at])
        if step is None:
            break
        steps.append(step)
        at = step.before
    return Descent(tuple(reversed(steps)), dict(measured), at, last)


def _maker(
    known: dict[Digest, Entry], measured: dict[Point, dict[Test, Verification]], model: Digest
) -> Point | None:
    """The latest entry that made a model and was measured; `START` for weights that none made."""
    for digest, entry in reversed(known.items()):
        made = not isinstance(entry.fact, Verification) and left_by(entry.fact) == model
        if made and digest in measured:
            return digest
    brought = {fact.model for fact in measured.get(START, {}).values()}
    return START if model in brought else None


def _step(known: dict[Digest, Entry], made: Entry) -> Step | None:
    """The step that ended with an entry; none of one that created a model."""
    if isinstance(made.fact, Merge):
        before = (known[digest] for digest in made.previous if digest in known)
        visits = tuple(entry for entry in before if isinstance(entry.fact, Visit))
    elif isinstance(made.fact, Visit):
        visits = (made,)
    else:
        return None
    base = [known[digest] for visit in visits[:1] for digest in visit.previous if digest in known]
    if not base:
        return None
    return Step(made, visits, base[0].previous[0] if base[0].previous else START)
