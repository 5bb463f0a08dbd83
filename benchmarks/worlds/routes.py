"""Which routes are recorded: the obvious ones, awkward ones, and random ones.

All are drawn from a seed, so a recording can be repeated and continued. They are ordered by
usefulness, so an interrupted recording has something of each kind.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from daitn.sim.learning.recordings import RecordedSite, Route

__all__ = ["Effort", "planned", "repeated"]

EPOCHS = (0.25, 0.5, 1.0, 2.0, 4.0)
EXAMPLES = (64, 250, 500, 1000)
_HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Effort:
    """How much is recorded of a split: what a family can afford."""

    random_routes: int
    most_visits: int = 15
    most_examples: int = 2000
    """Of one visit."""
    saturation_visits: int = 8
    rounds: int = 2
    """Over all sites by size, one epoch each."""


def planned(
    sites: Sequence[RecordedSite], expert: str, effort: Effort, seed: str
) -> list[tuple[Route, bool]]:
    """Every route to record, with whether it is held out. `expert` is the expert's topic."""
    rng = random.Random(seed)
    fixed = list(dict.fromkeys(_fixed(sites, expert, effort, rng)))
    drawn = [_random(sites, effort, rng, fixed) for _ in range(effort.random_routes)]
    every = max(1, len(drawn) // max(1, len(fixed)))
    mixed: list[Route] = []
    waiting = iter(drawn)
    for route in fixed:
        mixed += [route, *itertools.islice(waiting, every)]
    mixed += waiting
    mixed.append(_rounds(sites, effort))
    return [
        (route, number % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1)
        for number, route in enumerate(dict.fromkeys(mixed))
    ]


def repeated(routes: Sequence[tuple[Route, bool]], most: int) -> list[tuple[Route, bool]]:
    """The first and so most typical routes, for repetitions with other seeds."""
    return list(routes[:most])


def _fixed(
    sites: Sequence[RecordedSite], expert: str, effort: Effort, rng: random.Random
) -> Iterator[Route]:
    by_size = sorted(range(len(sites)), key=lambda index: (-sites[index].samples, index))
    special = [index for index in by_size if _is_special(sites[index], expert)] or by_size[-1:]
    general = [index for index in by_size if index not in special]

    def visit(index: int, epochs: float) -> tuple[int, int]:
        examples = max(1, round(epochs * sites[index].samples))
        return (index, min(examples, effort.most_examples))

    yield ()
    yield tuple(visit(index, 1) for index in by_size)
    yield tuple(visit(index, 2) for index in by_size[:5])
    yield tuple(visit(index, 1) for index in [*general, *special, *general[:2]])
    yield tuple(visit(index, 1) for index in [*special, *general, *special])
    order = rng.sample(range(len(sites)), len(sites))
    least = 250 if effort.most_examples >= 500 else 64
    yield tuple((index, least) for index in (order * 3)[: effort.most_visits])
    yield tuple((index, 64) for index in (order * 3)[: effort.most_visits])
    big, best = by_size[0], special[0]
    yield tuple(visit(big, 1) for _ in range(effort.saturation_visits))
    yield tuple(visit(best, 1) for _ in range(effort.saturation_visits))
    # what a visit itself costs: the same examples in one visit and in several
    yield ((big, 256),)
    yield ((big, 64),) * 4
    yield ((big, 128),) * 2
    yield ((big, 256), (best, 256))
    yield ((big, 256), *((best, 64),) * 4)
    yield ((big, 256), *((best, 16),) * 8)
    if len(by_size) > 1:
        yield from _turns(sites, effort)
    for index in by_size:
        yield tuple(visit(index, 0.5) for _ in range(3))
    # how fast one visit teaches a fresh model, by its length
    for index in {big, best, by_size[len(by_size) // 2]}:
        for examples in (16, 64, 250, 1000):
            yield ((index, min(examples, effort.most_examples)),)


def _rounds(sites: Sequence[RecordedSite], effort: Effort) -> Route:
    by_size = sorted(range(len(sites)), key=lambda index: (-sites[index].samples, index))
    visits = [(index, min(sites[index].samples, effort.most_examples)) for index in by_size]
    return tuple(visits * effort.rounds)


def _turns(sites: Sequence[RecordedSite], effort: Effort) -> Iterator[Route]:
    """Two sites that share as few labels as possible, in short turns and in long ones."""
    pairs = itertools.combinations(range(len(sites)), 2)
    one, other = min(pairs, key=lambda pair: _shared(sites[pair[0]], sites[pair[1]]))
    turns = min(12, effort.most_visits)
    for examples in (150, 32, 600):
        short = min(examples, effort.most_examples)
        yield tuple((index, short) for index in ([one, other] * turns)[:turns])


def _shared(one: RecordedSite, other: RecordedSite) -> float:
    """Overlap of two label histograms, in [0, 1]; smaller sites first where equal."""
    overlap = sum(
        min(count / one.samples, other.labels.get(label, 0) / other.samples)
        for label, count in one.labels.items()
    )
    return round(overlap, 3) - 1e-9 * min(one.samples, other.samples)


def _is_special(site: RecordedSite, expert: str) -> bool:
    return any(topic == expert or topic.startswith(expert + "/") for topic in site.topics)


def _random(
    sites: Sequence[RecordedSite], effort: Effort, rng: random.Random, known: Sequence[Route]
) -> Route:
    """A random route; one in three goes on from where a known one has got to, which is cheap."""
    route: list[tuple[int, int]] = []
    if rng.random() < 1 / 3:
        begun = rng.choice([known_one for known_one in known if known_one])
        route = list(begun[: rng.randint(1, len(begun))])
    length = rng.randint(2, max(2, effort.most_visits))
    few = rng.sample(range(len(sites)), min(len(sites), rng.randint(2, 5)))
    pool = few if rng.random() < 0.5 else list(range(len(sites)))
    while len(route) < length:
        index = rng.choice(pool)
        times = 2 if rng.random() < 0.15 else 1
        if rng.random() < 0.6:
            examples = max(1, round(rng.choice(EPOCHS) * sites[index].samples))
        else:
            examples = rng.choice(EXAMPLES)
        route += [(index, min(examples, effort.most_examples))] * times
    return tuple(route[: max(length, 2)])
