"""The same jobs by DA-ITN, Flower and NVIDIA FLARE, beside one another.

    python -m benchmarks.peers --task digits --network even
    python -m benchmarks.peers --task corpus --system flower --json out.json

Each system runs as it is deployed: a process at each site, in network namespaces joined by links of
100 Mbit/s (needs root, iproute2). Networks: `even`; `slow`, with the link of the largest site 50
times slower; `leaving`, in which two sites die in mid-job. The peers are installed once, in
environments of their own under --home.

Seconds count from the command that starts the job, with everything up, until a model that reaches
the targets has been measured. Peers measure at their server, at no cost of a transfer; DA-ITN's
verifiers are hosts of their own. All share one machine's processors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.environments import FLARE, FLOWER, environment
from benchmarks.peers.run import NETWORKS, Outcome, System, measured
from benchmarks.peers.systems.flare import Flare
from benchmarks.peers.systems.flower import Flower
from benchmarks.peers.systems.network import DaItn
from benchmarks.peers.tasks import TASKS, Task, write_task

_HOME = Path.home() / ".cache" / "daitn-peers"
_OURS = ("auto", "fedavg")
"""Algorithms of DA-ITN that are tried."""


def _daitn(task: Task, data: Path, home: Path) -> Iterator[System]:
    yield DaItn(data, _OURS[0])
    for epochs in task.epochs:
        yield DaItn(data, _OURS[1], {"epochs": epochs})


def _flower(task: Task, data: Path, home: Path) -> Iterator[System]:
    bin_ = environment(home, "flower", FLOWER)
    for epochs in task.epochs:
        yield Flower(bin_, data, epochs=epochs)
    if task.recipe == "classifier":
        yield Flower(bin_, data, "fedprox", task.epochs[-1], proximal=0.01)


def _flare(task: Task, data: Path, home: Path) -> Iterator[System]:
    bin_ = environment(home, "flare", FLARE)
    for epochs in task.epochs:
        yield Flare(bin_, data, epochs=epochs)


_SYSTEMS: dict[str, Callable[[Task, Path, Path], Iterator[System]]] = {
    "daitn": _daitn,
    "flower": _flower,
    "flare": _flare,
}
_COLUMNS = ("task", "network", "system", "setting", "reached", "accuracy", "s", "MB", "start-up s")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", action="append", choices=TASKS, help="default: all")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: all")
    parser.add_argument("--system", action="append", choices=_SYSTEMS, help="default: all")
    parser.add_argument("--home", type=Path, default=_HOME, help="of the peers' environments")
    parser.add_argument("--logs", type=Path, help="keep all files of the runs here")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    options = parser.parse_args()
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = options.logs or Path(scratch)
        for name in options.task or TASKS:
            task = write_task(name, work / name / "data")
            for system, network in itertools.product(
                options.system or _SYSTEMS, options.network or NETWORKS
            ):
                for number, one in enumerate(
                    _SYSTEMS[system](task, work / name / "data", options.home)
                ):
                    folder = work / name / f"{system}-{network}-{number}"
                    outcome = measured(one, task, network, folder)
                    found.append(outcome)
                    print(json.dumps(asdict(outcome)), flush=True)
                    if options.json:
                        options.json.write_text(json.dumps([asdict(each) for each in found]))
    print(table(found))


def table(found: list[Outcome]) -> str:
    """A line for each run."""
    lines = [f"| {' | '.join((*_COLUMNS, 'memory MB'))} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for one in found:
        values = ", ".join(f"{value:.3f}" for value in one.values.values())
        cells = (
            one.task,
            one.network,
            one.system,
            one.setting,
            "yes" if one.reached else "no",
            values,
            f"{one.seconds:.1f}",
            f"{one.sent_bytes / 1e6:.2f}",
            f"{one.startup_s:.1f}",
            f"{one.memory_bytes / 1e6:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
