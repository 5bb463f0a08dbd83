"""Play seeds: `python -m tests.faults --seed 17`, or many: `python -m tests.faults --seeds 0:1000`.

A seed that shows a problem is printed with the command that plays it again, event for event.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.faults.run import Outcome, log_from, run

_ONE_ORDER = "PYTHONHASHSEED"
"""Sets are in the order of their hashes: with another seed for these, a run is another one."""
_OF_ONE_PROCESS = 25
"""Seeds that one process plays: each leaves some 4 MB."""


def main() -> int:
    """Play them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="play one seed, and tell its faults")
    parser.add_argument("--seeds", default="", metavar="A:B", help="play those from A to B - 1")
    parser.add_argument("--within", type=float, default=1e9, metavar="S", help="stop after S s")
    parser.add_argument("--real", action="store_true", help="over real processes")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="real: this many runs")
    parser.add_argument("-v", "--verbose", action="store_true", help="with the processes' logs")
    given = parser.parse_args()
    if os.environ.get(_ONE_ORDER) != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.faults", *sys.argv[1:]],
            {**os.environ, _ONE_ORDER: "0"},
        )
    level = logging.INFO if given.verbose else logging.CRITICAL
    log_from(level)
    first, _, after = given.seeds.partition(":")
    seeds = range(int(first or 0), int(after or 20))
    if given.seed is not None:
        seeds = range(given.seed, given.seed + 1)
    each = _each(seeds, level, real=given.real, at_once=given.at_once, whole=given.seed is not None)
    until_s = time.monotonic() + given.within
    outcomes = list(itertools.takewhile(lambda _: time.monotonic() < until_s, each))
    return _told(outcomes, real=given.real)


def _each(seeds: range, level: int, *, real: bool, at_once: int, whole: bool) -> Iterator[Outcome]:
    """Play them; tell those with problems, or `whole`: all."""
    if real:  # Imported here: it needs scikit-learn, and the command line.
        from tests.faults.processes import each_real

        outcomes = each_real(seeds, at_once)
    else:
        outcomes = _in_turn(seeds, level)
    for outcome in outcomes:
        if whole or outcome.problems:
            _tell(outcome, real=real)
        yield outcome


def _in_turn(seeds: range, level: int) -> Iterator[Outcome]:
    """Play them, some in each process: of a run, what was killed in mid-step stays in memory."""
    if len(seeds) <= _OF_ONE_PROCESS:
        yield from map(run, seeds)
        return
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1, log_from, (level,), maxtasksperchild=_OF_ONE_PROCESS) as pool:
        for number, outcome in enumerate(pool.imap(run, seeds), 1):
            yield outcome
            if number % 100 == 0:
                print(f"{number} of {len(seeds)} seeds", file=sys.stderr, flush=True)


def _told(outcomes: list[Outcome], *, real: bool) -> int:
    """Print what came of them."""
    faults = Counter(fault.kind for outcome in outcomes for fault in outcome.faults)
    seconds = sum(outcome.seconds for outcome in outcomes)
    bad = sum(bool(outcome.problems) for outcome in outcomes)
    jobs = sum(len(outcome.jobs) for outcome in outcomes)
    told = f"{len(outcomes)} seeds, {jobs} jobs, {sum(faults.values())} faults, "
    if not real:
        told += _told_of_virtual(outcomes)
    print(f"{told}in {seconds:.0f} s; {bad} seeds with problems")
    print(", ".join(f"{kind} {n}" for kind, n in sorted(faults.items())))
    vain = Counter(fault.kind for outcome in outcomes for fault in outcome.in_vain)
    if vain:
        print("with nothing to harm:", ", ".join(f"{kind} {n}" for kind, n in sorted(vain.items())))
    return 1 if bad else 0


def _told_of_virtual(outcomes: list[Outcome]) -> str:
    virtual_s = sum(outcome.virtual_s for outcome in outcomes)
    messages = sum(outcome.messages for outcome in outcomes)
    asked = sum(outcome.queries for outcome in outcomes)
    sums = sum(outcome.sums for outcome in outcomes)
    two_faced = sum(outcome.two_faced for outcome in outcomes)
    used = os.times()
    processor_s = used.user + used.system + used.children_user + used.children_system
    return (
        f"{asked} queries, {messages} messages, {sums} secure sums, "
        f"{two_faced} two-faced facilities found, {virtual_s / 3600:.1f} h of virtual time "
        f"with {processor_s:.0f} s of processor time "
    )


def _tell(outcome: Outcome, *, real: bool) -> None:
    run = outcome.logs or outcome.trace
    lines = [f"seed {outcome.seed}: {len(outcome.problems)} problems; run {run}"]
    lines += [f"  {fault}" for fault in outcome.faults]
    lines += [f"  job {job}" for job in outcome.jobs]
    lines += [f"  PROBLEM {problem}" for problem in outcome.problems]
    lines += [f"  replay: python -m tests.faults {'--real ' if real else ''}--seed {outcome.seed}"]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
