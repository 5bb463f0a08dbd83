"""Record real training: measurements after every visit of many routes, to evaluate route policies.

    python -m benchmarks.record_worlds --family wine --minutes 2
    python -m benchmarks.record_worlds --family clinic --family tiny-llama --minutes 30
    python -m benchmarks.record_worlds --list

Continues where the last recording ended, and stops when all planned routes are recorded. Everything
is drawn from fixed seeds, so on the same machine and with one thread the same routes give the same
numbers, except times. Models of all shared beginnings of routes are kept in the work folder;
without it, they must be trained again to continue. A family is one file in benchmarks/recordings.
Files must stay small, as they are part of the project.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.worlds.files import FOLDER, families, load, save
from benchmarks.worlds.recorder import Case, Recorder, repeatable
from benchmarks.worlds.tables import TABLES, table_cases
from benchmarks.worlds.targets import suggested
from benchmarks.worlds.texts import TEXTS, text_cases
from daitn.sim.learning.recordings import (
    FORMAT,
    RecordedModel,
    RecordedOn,
    Recording,
    RecordingHeader,
)

__all__ = ["FAMILIES", "cases", "record"]

FAMILIES = (*TABLES, *TEXTS)
_SAVED_EVERY_S = 60.0


def main() -> None:
    options = _options()
    if options.list:
        print("\n".join(FAMILIES))
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # what is there is saved
    repeatable()
    for family in options.family or FAMILIES:
        made = list(cases(family, options.work))
        record(family, made, options.work, options.out, options.minutes)


def cases(family: str, work: Path) -> Iterator[Case]:
    """The splits of a family, their data written under `work`."""
    made = table_cases if family in TABLES else text_cases
    yield from made(family, work / family / "data")


def record(
    family: str, made: list[Case], work: Path, out: Path = FOLDER, minutes: float = 60.0
) -> Recording:
    """Record what is missing of a family, for at most so many minutes, and save it."""
    until_s = time.monotonic() + 60 * minutes
    saved_s = time.monotonic()
    known = load(family, out) if family in families(out) else None
    before = {split.split.split: dict(split.nodes) for split in known.splits} if known else {}
    recorders = [
        Recorder(case, work / family / "models", before.get(case.name, {})) for case in made
    ]
    header = _header(family) if known is None else known.header

    def recorded() -> Recording:
        # a repetition has the targets of what it repeats, which has more routes
        aims = {one.case.name: suggested(one.nodes) for one in recorders}
        splits = (one.trained(aims[one.case.repeats or one.case.name]) for one in recorders)
        return Recording(header=header, splits=tuple(splits))

    done = sum(len(one.nodes) for one in recorders)
    try:
        for node in _recorded(recorders, until_s):
            done += 1
            shown = ", ".join(f"{name} {score.value:.3f}" for name, score in node.measured.items())
            _say(f"{family}: {done} models; {node.split}, {len(node.route)} visits: {shown}")
            if time.monotonic() > saved_s + _SAVED_EVERY_S:
                save(recorded(), out)
                saved_s = time.monotonic()
    finally:  # what is there is worth keeping, above all when somebody has had enough of it
        recording = recorded()
        path = save(recording, out)
    _say(f"{family}: {done} models in {path}, {path.stat().st_size / 1e3:.0f} kB\n")
    return recording


def _recorded(recorders: list[Recorder], until_s: float) -> Iterator[RecordedModel]:
    """Route by route over all splits, so that a short recording has something of each."""
    for round_of in itertools.zip_longest(*(one.steps() for one in recorders)):
        for node in itertools.chain.from_iterable(filter(None, round_of)):
            yield node
            if time.monotonic() > until_s:
                return


def _header(family: str) -> RecordingHeader:
    return RecordingHeader(
        format=FORMAT,
        family=family,
        recorded_on=RecordedOn(
            cpu=_processor(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            torch=str(torch.__version__),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        ),
        command=f"python -m benchmarks.record_worlds --family {family}",
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(text: str) -> None:
    """One line that is written over on a terminal, and few lines in a log."""
    end = "\r" if sys.stderr.isatty() and not text.endswith("\n") else "\n"
    sys.stderr.write(text.rstrip("\n")[:150].ljust(150).rstrip() + end)
    sys.stderr.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--family", action="append", choices=FAMILIES, help="record this family; may be repeated"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="maximum per family (60)")
    parser.add_argument("--list", action="store_true", help="print the families and stop")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the recordings")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "daitn-record-worlds",
        help="folder for data and models while recording (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
