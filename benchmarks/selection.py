"""Whether the network chooses the right algorithm: `adaptive` compared with each algorithm by name.

    python -m benchmarks.selection [--development | --validation] [--episodes 24]
        [--family F ...] [--algorithm A ...] [--again] [--jobs N] [--json out.json]

Every policy runs the same jobs of the learning worlds. Models of recorded tables, and of many
sites, are trained and merged during the run; targets and budgets of recorded tables come from the
regression of the recording, so a world is made in seconds. The other truths are power-law learners,
with the merge model of `daitn.sim.learning.merging`. A policy that misses counts as its whole
budget; episodes in which no policy reaches the targets do not count. `--again` repeats the best
algorithm of each world with other random seeds, which shows the benefit of knowing it beforehand.
Tune on `--development` seeds and report `--validation` seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import geometric_mean

import msgspec

from benchmarks.worlds.beyond import again, trainer
from benchmarks.worlds.files import load
from benchmarks.worlds.many import MANY, many_sites
from benchmarks.worlds.tables import TABLES
from daitn.objects.merging import CONSIDERED
from daitn.sim.learning.episode import run
from daitn.sim.learning.families import FAMILIES as SYNTHETIC
from daitn.sim.learning.families.recorded import recorded_family
from daitn.sim.learning.families.seeds import DEVELOPMENT, VALIDATION
from daitn.sim.learning.in_rounds import InRounds
from daitn.sim.learning.planned import PlannedPolicy
from daitn.sim.learning.policy import RoutePolicy
from daitn.sim.learning.replay import Replay
from daitn.sim.learning.selected import SelectedPolicy
from daitn.sim.learning.topologies import Topologies
from daitn.sim.learning.world import LearningWorld

SEQUENTIAL, ADAPTIVE = "sequential", "adaptive"
WAYS: dict[str, Callable[[], RoutePolicy]] = {
    SEQUENTIAL: PlannedPolicy,
    **{str(one): (lambda one=one: InRounds(one)) for one in CONSIDERED},  # type: ignore[misc]
    ADAPTIVE: SelectedPolicy,
}
AGAIN = "the best again"
"""The best algorithm of each world by name, chosen in hindsight, with other luck."""
NO_NAME = (ADAPTIVE, AGAIN)
"""What is led and is no algorithm by name."""
FAMILIES = (*TABLES, MANY, "plain", "single class", "conflicting", "slow links", "clients", "alike")
CLOSE = 1.2
"""Times the best algorithm's time that count as right."""


class Led(msgspec.Struct, frozen=True, kw_only=True):
    """One world under every policy."""

    family: str
    seed: int
    sites: int
    budget_s: float
    seconds: dict[str, float]
    """Of the policies that reached."""
    chosen: tuple[str, ...]
    """What `adaptive` did, step by step."""

    def of(self, way: str) -> float:
        return self.seconds.get(way, self.budget_s)

    @property
    def best_s(self) -> float | None:
        """Of the algorithms by name."""
        named = [s for way, s in self.seconds.items() if way not in NO_NAME]
        return min(named, default=None)


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One world to lead policies through."""

    family: str
    seed: int
    ways: tuple[str, ...]
    again: bool


@cache
def _made(family: str) -> Callable[[int], LearningWorld]:
    if family == MANY:
        return many_sites
    return SYNTHETIC[family] if family in SYNTHETIC else recorded_family(load(family))


def world(family: str, seed: int) -> LearningWorld:
    """A world whose table is trained and merged for real."""
    made = _made(family)(seed)
    real = trainer(family, made.split) if made.split else None
    if real is None or not isinstance(made.learner, Replay):
        return made
    return replace(made, learner=replace(made.learner, trainer=real[0], merger=real[1]))


def led(piece: Piece) -> Led:
    """Every policy through one world."""
    ground = world(piece.family, piece.seed)
    topologies = Topologies(ground)
    episodes = {way: run(ground, WAYS[way](), topologies) for way in piece.ways}
    reached = [way for way, one in episodes.items() if one.reached and way not in NO_NAME]
    if piece.again and reached:
        best = min(reached, key=lambda way: episodes[way].seconds)
        episodes[AGAIN] = run(again(ground), WAYS[best](), topologies)
    return Led(
        family=piece.family,
        seed=piece.seed,
        sites=len(ground.sites),
        budget_s=ground.intent.budget.duration_s or 0.0,
        seconds={way: round(one.seconds, 2) for way, one in episodes.items() if one.reached},
        chosen=episodes[ADAPTIVE].steps if ADAPTIVE in episodes else (),
    )


def table(found: Sequence[Led], ways: Sequence[str] = tuple(WAYS)) -> Iterator[str]:
    """Per policy: how often it reached and was close to the best algorithm of each world."""
    counted = [one for one in found if one.best_s is not None]
    yield f"{len(found)} worlds; an algorithm by name reached in {len(counted)}"
    yield "| algorithm | reached | within 1.2 of the best | time over the best | best in |"
    yield "|---|---|---|---|---|"
    for way in ways:
        ratios = [one.of(way) / one.best_s for one in counted if one.best_s]
        reached = sum(way in one.seconds for one in counted)
        close = sum(
            ratio <= CLOSE and way in one.seconds
            for ratio, one in zip(ratios, counted, strict=True)
        )
        best = sum(one.seconds.get(way) == one.best_s for one in counted)
        mean = geometric_mean(ratios) if ratios else float("nan")
        yield (
            f"| {way} | {reached} of {len(counted)} | {close / max(1, len(counted)):.0%} "
            f"| {mean:.2f} | {best} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_PLAIN)
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--development", dest="first", action="store_const", const=DEVELOPMENT)
    seeds.add_argument("--validation", dest="first", action="store_const", const=VALIDATION)
    parser.set_defaults(first=DEVELOPMENT)
    parser.add_argument(
        "--episodes", type=int, default=24, help="number of episodes over all families"
    )
    parser.add_argument(
        "--family", action="append", choices=FAMILIES, help="only this family; may be repeated"
    )
    parser.add_argument(
        "--algorithm",
        action="append",
        choices=tuple(WAYS),
        help="only this algorithm; may be repeated",
    )
    parser.add_argument("--again", action="store_true", help="run the best once more")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--json", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    families, ways = options.family or FAMILIES, tuple(options.algorithm or WAYS)
    pieces = [
        Piece(
            family=families[number % len(families)],
            seed=options.first + number // len(families),
            ways=ways,
            again=options.again,
        )
        for number in range(options.episodes)
    ]
    found: list[Led] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for one in pool.map(led, pieces) if options.jobs > 1 else map(led, pieces):
            found.append(one)
            print(json.dumps(msgspec.to_builtins(one)), flush=True)
    print("\n".join(table(found, (*ways, AGAIN) if options.again else ways)))
    if options.json:
        options.json.write_bytes(msgspec.json.encode(found))


_PLAIN = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
