"""The same jobs on DA-ITN, Flower and NVIDIA FLARE.

    python -m benchmarks.peers --task digits --network even --results results.jsonl
    python -m benchmarks.peers --system flower --system daitn-fedavg
    python -m benchmarks.peers --results results.jsonl --so-far

Each system runs as it is deployed: a process at each site, in network namespaces joined by links of
100 Mbit/s (needs root, iproute2 and control groups of version 1). Networks: `even`; `slow`, with
the link of the first site 50 times slower; `leaving`, in which two sites die once some site has
trained. The peers are installed once, in separate environments under --home. Systems take turns
within each seed, so other load on the machine affects all alike.

Times count from the command that starts the job, with everything running, until a model that
reaches the target has been measured. Peers measure where the model is, without a transfer; DA-ITN's
verifier is a separate host. All share one machine's processors.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.report import table
from benchmarks.peers.run import NETWORKS, Outcome, measured
from benchmarks.peers.tasks import TASKS, write_task

_HOME = Path.home() / ".cache" / "daitn-benchmarks" / "peers"
_SEEDS = (1, 2, 3)
"""Other ones than those of `tuning`."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", action="append", choices=TASKS, help="default: all")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: all")
    parser.add_argument("--system", action="append", choices=CONTENDERS, help="default: all")
    parser.add_argument("--seed", action="append", type=int, help=f"default: {_SEEDS}")
    parser.add_argument(
        "--home", type=Path, default=_HOME, help="folder of the peers' environments"
    )
    parser.add_argument("--logs", type=Path, help="keep all files of the runs in this new folder")
    parser.add_argument("--results", type=Path, help="add a line of JSON for each run to this file")
    parser.add_argument("--so-far", action="store_true", help="only print what --results holds")
    options = parser.parse_args()
    # Processes, namespaces and links of a run must not outlive it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    found = _kept(options.results) if options.results and options.results.is_file() else []
    with tempfile.TemporaryDirectory() as scratch:
        work = options.logs or Path(scratch)
        for seed, task, network, name in itertools.product(
            options.seed or _SEEDS,
            options.task or TASKS,
            options.network or NETWORKS,
            () if options.so_far else options.system or CONTENDERS,
        ):
            contender = CONTENDERS[name]
            if network != "even" and not contender.networked:
                continue
            folder = work / f"{task}-{seed}-{network}-{name}"
            rate = contender.rate(task)
            job = write_task(task, seed, folder / "data", learning_rate=rate)
            system = contender.system(options.home, folder / "data", task, network == "leaving")
            try:
                outcome = measured(system, job, network, folder / "run")
            except TimeoutError as error:
                print(f"{name}, {task}, {network}, seed {seed}: {error}", file=sys.stderr)
                continue
            found.append(outcome)
            line = msgspec.json.encode(outcome)
            print(line.decode(), flush=True)
            if options.results:
                with options.results.open("ab") as file:
                    file.write(line + b"\n")
    print(table(found))


def _kept(results: Path) -> list[Outcome]:
    return [msgspec.json.decode(line, type=Outcome) for line in results.read_bytes().splitlines()]


if __name__ == "__main__":
    main()
