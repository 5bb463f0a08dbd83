"""How route policies perform in simulated learning worlds, compared with obvious ones.

    python -m benchmarks.route_worlds [--development | --validation] [--episodes 512]
        [--family F ...] [--policies NAME ...] [--seed N] [--jobs N] [--no-oracle] [--again]
        [--json]
        [--results FILE [--so-far]]
    python -m benchmarks.route_worlds --calibration

Every policy runs the same episodes. Tune on `--development` seeds (the default) and report
`--validation` seeds: the two ranges share no world. Decisions are measured in CPU time, so other
load on the machine does not count. `--results` saves each world as soon as it is finished, so an
interrupted run can be continued; families take turns, so the file holds about as many worlds of
each. `--so-far` only prints what the file holds. `--again` repeats the best obvious policy of
each world with other random seeds, which shows the benefit of knowing it beforehand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import msgspec

from benchmarks.worlds import files
from benchmarks.worlds.beyond import again, trainer
from daitn.sim.learning.autonomous import AutonomousPolicy
from daitn.sim.learning.baselines import obvious_policies
from daitn.sim.learning.calibration import calibrated
from daitn.sim.learning.comparison import Judged, PolicyResult, compared
from daitn.sim.learning.episode import run
from daitn.sim.learning.families import FAMILIES as SYNTHETIC
from daitn.sim.learning.families.recorded import (
    STRESSED,
    judgeable,
    recorded_family,
    stressed_family,
)
from daitn.sim.learning.families.seeds import DEVELOPMENT, MOST_SEEDS, VALIDATION
from daitn.sim.learning.oracle import hindsight
from daitn.sim.learning.planned import PlannedPolicy, PlannedWithExperience
from daitn.sim.learning.policy import Experienced, RoutePolicy
from daitn.sim.learning.topologies import Topologies
from daitn.sim.learning.world import LearningWorld

PLANNERS: dict[str, Callable[[], RoutePolicy]] = {
    "mtrce": PlannedPolicy,
    "experienced": PlannedWithExperience,
    "autonomous": AutonomousPolicy,
    "autonomous, by adverts": partial(
        AutonomousPolicy, name="autonomous, by adverts", announced=False
    ),
}
"""Policies that are not obvious, by name."""
OBVIOUS: dict[str, Callable[[], RoutePolicy]] = {
    policy.name: (lambda policy=policy: policy)  # type: ignore[misc]
    for policy in obvious_policies()
}
POLICIES = OBVIOUS | PLANNERS
recording = cache(files.load)
RECORDED = tuple(name for name in files.families() if judgeable(recording(name)))
"""Those of which enough was recorded."""
FAMILIES = (*RECORDED, STRESSED, *SYNTHETIC)
EARLIER, _EARLIER_FROM = 20, 500_000
"""Jobs of the same family, with seeds so far away, that a policy with experience leads first."""
AGAIN = "the best again"
"""The best obvious policy of each world, chosen in hindsight, led again with other luck: what it
would bring to know it beforehand."""
_CHUNK = 2
"""Episodes of one piece of parallel work, where no policy learns from one to the next."""


@dataclass(frozen=True)
class Piece:
    """Episodes of one family that one process leads, in this order."""

    family: str
    seeds: tuple[int, ...]
    policies: tuple[str, ...]
    oracle: bool
    again: bool = False


@cache
def family(name: str) -> Callable[[int], LearningWorld]:
    """A synthetic family, or the recorded one of this name."""
    if name in SYNTHETIC:
        return SYNTHETIC[name]
    if name == STRESSED:
        return stressed_family([recording(each) for each in RECORDED], trainer)
    return recorded_family(recording(name), trainer)


def led(piece: Piece) -> list[Judged]:
    """Every policy through every world of a piece."""
    policies = {name: POLICIES[name]() for name in piece.policies}
    for policy in policies.values():
        if isinstance(policy, Experienced):
            for earlier in range(EARLIER):
                run(family(piece.family)(piece.seeds[0] + _EARLIER_FROM + earlier), policy)
    judged = []
    for seed in piece.seeds:
        world = family(piece.family)(seed)
        topologies = Topologies(world)
        episodes = {
            name: run(world, policy, topologies, time.process_time)
            for name, policy in policies.items()
        }
        best = hindsight(world, tuple(episodes.values())) if piece.oracle else None
        one = Judged(
            family=piece.family,
            seed=seed,
            budget_s=world.intent.budget.duration_s or 0.0,
            reachable=any(episodes[name].reached for name in piece.policies if name in OBVIOUS),
            episodes=episodes,
            oracle_s=best.seconds if best else None,
            oracle_examples=best.examples if best else None,
            known=bool(world.reference),
        )
        if piece.again:
            episodes[AGAIN] = run(again(world), OBVIOUS[min(OBVIOUS, key=one.seconds)]())
        judged.append(one)
    return judged


def pieces(
    families: Sequence[str],
    episodes: int,
    first: int,
    policies: Sequence[str],
    *,
    oracle: bool,
    again: bool = False,
) -> list[Piece]:
    """Equal shares of the episodes, families in turn; whole ones where a policy learns from job to
    job."""
    each = -(-episodes // len(families))
    if each > MOST_SEEDS:
        raise SystemExit(f"at most {MOST_SEEDS} episodes of a family")
    whole = any(isinstance(POLICIES[name](), Experienced) for name in policies)
    chunk = each if whole else _CHUNK
    seeds = range(first, first + each)
    return [
        Piece(name, tuple(seeds[at : at + chunk]), tuple(policies), oracle, again)
        for at in range(0, each, chunk)
        for name in families
    ]


def leading(work: Sequence[Piece], jobs: int) -> Iterator[list[Judged]]:
    """The pieces' worlds, piece by piece in this order."""
    if jobs == 1:
        yield from map(led, work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(led, work)


def kept(results: Path | None) -> list[Judged]:
    """The worlds that a file of results holds, one a line."""
    if results is None or not results.exists():
        return []
    lines = results.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Judged) for line in lines]


def main() -> None:
    arguments = parsed()
    families = arguments.family or FAMILIES
    if arguments.calibration:
        tell_calibration([name for name in families if name in RECORDED], arguments.json)
        return
    policies = arguments.policies or list(POLICIES)
    policies = [*OBVIOUS, *(name for name in policies if name not in OBVIOUS)]
    first = (VALIDATION if arguments.validation else DEVELOPMENT) + arguments.seed
    work = pieces(
        families,
        arguments.episodes,
        first,
        policies,
        oracle=not arguments.no_oracle,
        again=arguments.again,
    )
    began_s = time.perf_counter()
    judged = kept(arguments.results)
    there = {(world.family, world.seed) for world in judged}
    if not arguments.so_far:
        left = [piece for piece in work if {(piece.family, one) for one in piece.seeds} - there]
        for worlds in leading(left, arguments.jobs):
            judged += worlds
            if arguments.results is not None:
                with arguments.results.open("ab") as file:
                    file.writelines(msgspec.json.encode(world) + b"\n" for world in worlds)
    took_s = time.perf_counter() - began_s
    told_of = [*policies, AGAIN] if arguments.again else policies
    groups = {name: [w for w in judged if w.family == name] for name in families}
    groups["all"] = judged
    table = {
        group: [compared(worlds, policy, tuple(OBVIOUS)) for policy in told_of]
        for group, worlds in groups.items()
        if worlds
    }
    if arguments.json:
        rows_of = {group: [asdict(row) for row in rows] for group, rows in table.items()}
        print(json.dumps({"first_seed": first, "took_s": took_s, "groups": rows_of}))
        return
    for group, rows in table.items():
        print(told(group, rows))
    print(f"{len(judged)} worlds, {took_s:.0f} s")


def tell_calibration(recorded: Sequence[str], as_json: bool) -> None:
    """How far the surrogate of each recorded family is from routes held out of its fit."""
    found = [calibrated(recording(name)) for name in recorded]
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        print(f"{one.family}: {one.splits} splits, seeds differ by {one.seeds_rmse:.3f} (rms)")
        for name, errors in (("visits", one.visits), ("routes", one.routes)):
            print(
                f"  {name}: {errors.count} values, bias {errors.bias:+.3f}, rmse {errors.rmse:.3f}"
                f" (standing still {errors.still_rmse:.3f}), 80 % hold {errors.covered:.2f}"
            )


def told(group: str, rows: Sequence[PolicyResult]) -> str:
    """One family's table."""
    head = f"{group}: {rows[0].episodes} episodes, {rows[0].reachable} reachable"
    columns = (
        f"  {'':22}{'reached':>8}{'of known':>9}{'besides':>8}{'of budget':>10}{'wasted':>8}"
        f"{'best obv.':>10}{'examples':>9}{'oracle':>8}{'worst':>8}{'p50 ms':>8}{'p99 ms':>8}"
    )
    lines = [
        f"  {row.policy:22}{row.reached_share:8.3f}{row.reached_known:9.3f}{row.reached_besides:8d}"
        f"{row.mean_share_of_budget:10.3f}{row.wasted_share:8.2f}{row.best_obvious_s:10.3f}"
        f"{row.best_obvious_examples:9.3f}{row.oracle_mean:8.2f}{row.oracle_worst:8.1f}"
        f"{1e3 * row.decision_median_s:8.2f}{1e3 * row.decision_p99_s:8.2f}"
        for row in rows
    ]
    against = [
        f"  {row.policy} against "
        + ", ".join(f"{name} {mean:.2f}/{geo:.2f}" for name, (mean, geo) in row.against.items())
        for row in rows
        if row.policy not in OBVIOUS
    ]
    return "\n".join([head, columns, *lines, *against])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--development", action="store_true", help="seeds to tune on (default)")
    seeds.add_argument("--validation", action="store_true", help="seeds to report")
    parser.add_argument("--episodes", type=int, default=512, help="number over all families")
    parser.add_argument(
        "--family", nargs="+", choices=FAMILIES, metavar="F", help="only these families"
    )
    parser.add_argument(
        "--policies", nargs="+", choices=list(POLICIES), metavar="NAME", help="only these policies"
    )
    parser.add_argument("--seed", type=int, default=0, help="added to the range's first seed")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument(
        "--calibration", action="store_true", help="only evaluate the recorded worlds' surrogates"
    )
    parser.add_argument("--again", action="store_true", help="run the best obvious once more")
    parser.add_argument("--no-oracle", action="store_true", help="omit the best in hindsight")
    parser.add_argument("--results", type=Path, help="save each world in this file")
    parser.add_argument("--so-far", action="store_true", help="only print what --results holds")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
